"""Claims about each dataset, network or arm hold where they hold in every one of them."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_claims import RUNS, SIGMAS, cell, made

from dpmedbench import claims
from dpmedbench.verdicts import CONTRADICTED, SUPPORTED, UNCLEAR

BY_ID = {claim.id: claim for claim in claims.CLAIMS}
ARMS = {"opacus": "opacus", "book_keeping": "bookkeeping"}


def both(effects, make):
    """Cells by `make(name, effect, run, level)` for each name; the runs differ a little."""
    return made(
        [
            row
            for run in range(RUNS)
            for name, effect in effects.items()
            for level in SIGMAS
            for row in make(name, effect + 0.01 * (run % 2), run, level)
        ]
    )


def loss_by_arm(name, effect, run, level):
    yield cell(name, run, level, train_loss=effect * level, val_loss=effect * level)


def loss_by_dataset(name, effect, run, level):
    yield cell("book_keeping", run, level, dataset=name)
    yield cell("opacus", run, level, dataset=name, mean_val_loss=1 + effect)


def loss_by_network(name, effect, run, level):
    yield cell("ordinary", run, model=name) if level == SIGMAS[0] else cell("flat", run, level)
    losses = dict.fromkeys(("train_loss", "val_loss", "epoch_seconds"), 1 + effect)
    yield cell("automatic", run, level, name, val_pixel_accuracy=1 - effect, **losses)


def sparse_by_network(name, effect, run, level):
    if level == SIGMAS[0]:
        yield cell("ordinary", run, model=name)
    yield cell("automatic", run, level, name)
    yield cell("sparsified", run, level, name, train_loss=1 + effect)


def accuracy_by_dataset(name, effect, run, level):
    rises = effect * np.log2(level)
    values = {"train_accuracy_best": rises, "test_accuracy_best": rises}
    yield cell("laplace", run, level, "resnet18", name, **values)


ARM, DATA = {"opacus": 0.6, "book_keeping": -0.3}, {"duke": 0.5, "umn": -0.1}
NETWORKS = {"unet": -0.3, "nested_unet": 0.15}


@pytest.mark.parametrize(
    ("name", "effects", "make", "least"),
    [
        ("bookkeeping.training_loss_noise", ARM, loss_by_arm, "bookkeeping"),
        ("bookkeeping.validation_loss_noise", ARM, loss_by_arm, "bookkeeping"),
        ("bookkeeping.validation_loss", DATA, loss_by_dataset, "umn"),
        ("clipping.training_loss", NETWORKS, loss_by_network, "nested_unet"),
        ("clipping.matching_train_loss", NETWORKS, loss_by_network, "nested_unet"),
        ("clipping.matching_val_loss", NETWORKS, loss_by_network, "nested_unet"),
        ("clipping.matching_accuracy", NETWORKS, loss_by_network, "nested_unet"),
        ("clipping.efficiency", NETWORKS, loss_by_network, "nested_unet"),
        (
            "clipping.sparsification_loss",
            {"unet": 0.5, "nested_unet": -0.1},
            *(sparse_by_network, "nested_unet"),
        ),
        (
            "local_dp.training_accuracy_laplace",
            {"chest_xray": -0.3, "aptos": 0.1},
            *(accuracy_by_dataset, "aptos"),
        ),
        (
            "local_dp.test_accuracy_laplace",
            {"chest_xray": 0.05, "aptos": -0.06},
            *(accuracy_by_dataset, "chest_xray"),
        ),
    ],
)
def test_half_a_claim_is_none(name, effects, make, least):
    row = BY_ID[name].row(both(effects, make))
    assert row["verdict"] == CONTRADICTED, row
    assert f"{least}, " in row["finding"]
    assert "which fits least of 2" in row["finding"]


def test_networks_that_differ_have_no_common_dice():
    cells, scores = [], []
    for run in range(RUNS):
        for model, effect in (("unet", 0.1), ("nested_unet", -0.12)):
            cells += [cell("ordinary", run, model=model), cell("automatic", run, 1.0, model)]
            scores += [0.5, 0.5 + effect + 0.001 * run]
    row = BY_ID["clipping.utility"].row(made(cells, scores))
    assert row["verdict"] == CONTRADICTED
    assert row["value"] == pytest.approx(-0.1185)
    assert row["finding"].endswith(
        "(duke, nested_unet, which fits least of 2: 1 setting, 4 runs, 20 patients)."
    )


@pytest.mark.parametrize(("effect", "verdict"), [(0.1, SUPPORTED), (-0.004, UNCLEAR)])
def test_a_claim_holds_where_every_part_does(effect, verdict):
    """The runs of the second differ by more than it is from 0."""
    row = BY_ID["bookkeeping.validation_loss"].row(
        both({"duke": 0.5, "umn": effect}, loss_by_dataset)
    )
    assert row["verdict"] == verdict
    assert "umn, unet, which fits least of 2: 4 settings, 4 runs" in row["finding"]


@pytest.mark.parametrize(("number", "verdict"), [(1, CONTRADICTED), (9, UNCLEAR)])
def test_one_part_of_many_is_off_by_chance(number, verdict):
    """p = 0.02 of one dataset is not small among nine."""
    effects = {f"data_{n}": 0.5 for n in range(number)} | {"data_0": -0.017}
    row = BY_ID["bookkeeping.validation_loss"].row(both(effects, loss_by_dataset))
    assert row["value"] == pytest.approx(-0.012)
    assert row["verdict"] == verdict
    assert ("data_0, unet, which fits least of 9" in row["finding"]) == (number == 9)


def test_what_contradicts_is_shown_rather_than_what_is_further_off_by_chance():
    cells = []
    for run in range(RUNS):
        effects = {"duke": -0.1, "umn": (-2.0, 1.0)[run % 2]}
        for dataset, effect in effects.items():
            cells += loss_by_dataset(dataset, effect, run, 1.0)
    row = BY_ID["bookkeeping.validation_loss"].row(made(cells))
    assert row["verdict"] == CONTRADICTED
    assert row["value"] == pytest.approx(-0.1)


def test_gains_of_one_training_have_no_interval():
    """All noise levels are held against the same two."""
    cells = [
        cell(way, 0, level, model, epoch_seconds=1 + (level or 0) * (model == "unet"))
        for model in ("unet", "nested_unet")
        for way, levels in (("ordinary", [None]), ("automatic", SIGMAS))
        for level in levels
    ]
    row = BY_ID["clipping.efficiency_nested"].row(made(cells))
    assert row["verdict"] == UNCLEAR
    assert row["finding"].endswith("(1 setting, single runs, no interval).")


def test_rivals_of_one_training_are_one_unit():
    """Two networks, each with two rivals that are held against the same Book-Keeping cell."""
    cells = [
        cell(way, 0, 1.0, model, step_seconds=seconds)
        for model, slower in (("unet", 2.0), ("nested_unet", 2.6))
        for way, seconds in (("flat", slower), ("ghost_clip", slower + 0.1), ("book_keeping", 1.0))
    ]
    row = BY_ID["engines.speed_bookkeeping"].row(made(cells))
    assert "4 settings, single runs" in row["finding"]
    assert row["low"] < 1.3
    assert row["verdict"] == UNCLEAR


def test_the_highest_loss_of_one_ordinary_training_has_no_interval():
    cells = [cell("ordinary", 0, train_loss=2.0)]
    for number, level in enumerate(SIGMAS):
        cells += [
            cell("automatic", 0, level),
            cell("sparsified", 0, level, train_loss=2.5 + number),
        ]
    row = BY_ID["clipping.sparsification_loss"].row(made(cells))
    assert row["verdict"] == UNCLEAR
    assert row["finding"].endswith("single runs, no interval).")


def test_the_largest_saving_is_that_of_one_setting():
    peaks = {"unet": (7.0, 12.0), "nested_unet": (9.0, 9.0)}
    cells = [
        cell(way, run, 1.0, model, peak_gpu_bytes=peak)
        for model, of_runs in peaks.items()
        for run, rival in enumerate(of_runs)
        for way, peak in (("flat", rival), ("book_keeping", 1.0))
    ]
    row = BY_ID["engines.saving_bookkeeping"].row(made(cells))
    assert (row["value"], row["low"], row["high"]) == (9.5, 7.0, 12.0)
    assert row["verdict"] == UNCLEAR


def test_what_no_study_states_is_no_published_claim():
    for name, claim in BY_ID.items():
        ours = any(word in name for word in ("balanced", "alike", "local_better"))
        assert claim.source.startswith("control") == ours
        assert claim.claim.startswith("Control: ") == ours


def test_validation_losses_are_named_by_their_images():
    for name, claim in BY_ID.items():
        if "val" in name.split(".")[1] and "_loss" in name:
            assert "validation images of the split" in claim.statistic
