"""The published claims: each verdict of each claim, forced by made-up results."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
from claim_cases import CASES
from made_up_claims import PER_LAYER, RUNS, SIGMAS, WAYS, cell, made, on_patients
from scipy import stats

from dpmedbench import claims, results
from dpmedbench.claims import base, ways
from dpmedbench.verdicts import CONTRADICTED, NOT_RUN, SUPPORTED, UNCLEAR

BY_ID = {claim.id: claim for claim in claims.CLAIMS}


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (WAYS["ordinary"], {"ordinary"}),
        (WAYS["opacus"], {"opacus", "opacus_per_layer", "dp_sgd"}),
        (WAYS["opacus"] | {"layer_thresholds": "scaled"}, {"opacus", "dp_sgd"}),
        (WAYS["flat"], {"opacus", "opacus_flat", "rivals", "dp_sgd"}),
        (WAYS["flat"] | {"mode": "ghost"}, {"rivals", "dp_sgd"}),
        (WAYS["alike"], {"opacus_flat", "rivals"}),
        (WAYS["book_keeping"], {"book_keeping", "book_keeping_automatic"}),
        (WAYS["book_keeping"] | {"clipping": "abadi"}, {"book_keeping", "dp_sgd"}),
        (WAYS["book_keeping"] | {"mode": "base"}, {"book_keeping"}),
        (WAYS["book_keeping"] | {"mode": "mix_flops"}, set()),
        (WAYS["book_keeping"] | PER_LAYER, set()),
        (WAYS["fastdp"] | {"mode": "ghost"}, {"book_keeping"}),
        (WAYS["ghost_clip"], {"rivals", "ghost_clip", "dp_sgd"}),
        (WAYS["book_keeping"] | {"mode": "fast_gradient_clip"}, {"rivals"}),
        (WAYS["automatic"], {"automatic"}),
        (WAYS["sparsified"], {"sparsified"}),
        (WAYS["laplace"], {"laplace"}),
        (WAYS["scalar"], {"scalar"}),
        *(
            (WAYS[way] | {"noise_schedule": "linear"}, set())
            for way in ("opacus", "book_keeping", "automatic", "sparsified")
        ),
    ],
)
def test_ways_are_told_apart_by_what_they_are(traits, expected):
    cells = pd.DataFrame([cell("ordinary", 0) | {"mode": "autograd"} | traits])
    select = {name: way for name, way in vars(ways).items() if inspect.isfunction(way)}
    found = {name for name, way in select.items() if name[0] != "_" and len(way(cells))}
    assert found - {"with_noise"} == expected


def test_every_claim_has_its_case():
    assert set(CASES) == set(BY_ID)
    assert len(BY_ID) == len(claims.CLAIMS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("verdict", [SUPPORTED, CONTRADICTED, UNCLEAR])
def test_each_verdict_of_each_claim(name, verdict):
    make, supporting, contradicting, undecided = CASES[name]
    effects = {
        SUPPORTED: lambda run: supporting,
        CONTRADICTED: lambda run: contradicting,
        UNCLEAR: lambda run: undecided[run % 2],
    }
    row = BY_ID[name].row(make(effects[verdict]))
    assert row["verdict"] == verdict, row
    assert row["low"] <= row["value"] <= row["high"]
    assert "{" not in row["finding"]
    assert row["finding"].endswith(").")


@pytest.mark.parametrize("name", CASES)
def test_a_claim_without_its_cells_is_not_run(name):
    """Neither by another mechanism, nor by one of two that it takes, nor on another dataset."""
    other = {"engine": "opacus", "mode": "ghost", "clipping": "adaptive"}
    cells = [cell("opacus", run, 0.4, "resnet18", "other") | other for run in range(2)]
    row = BY_ID[name].row(made(cells))
    assert row["verdict"] == NOT_RUN
    assert row["finding"] == ""
    assert math.isnan(row["value"])


@pytest.mark.parametrize(
    "name",
    [
        *("bookkeeping.budget", "bookkeeping.time_noise_duke", "bookkeeping.training_loss_noise"),
        *("bookkeeping.validation_loss_noise", "clipping.budget_complexity"),
        *("clipping.budget_noise", "local_dp.decline_dp_sgd", "bookkeeping.budget_early"),
        *("bookkeeping.budget_duke", "bookkeeping.budget_umn", "bookkeeping.budget_noise"),
        *("local_dp.training_accuracy_dp_sgd", "local_dp.test_accuracy_dp_sgd"),
        *("bookkeeping.time_noise_duke_opacus", "local_dp.decline_balanced_dp_sgd"),
    ],
)
def test_noise_that_follows_from_epsilon_is_no_noise_level(name):
    """Of one epsilon each fold has a noise of its own, and all epsilons are equal as wanted."""
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    calibrated = found.cells.assign(target_epsilon=8.0)
    given = results.Results(calibrated, found.segmented, found.predicted)
    assert BY_ID[name].row(given)["verdict"] == NOT_RUN


@pytest.mark.parametrize(
    "name",
    [
        *("bookkeeping.budget_reached", "bookkeeping.budget_early", "bookkeeping.loss_range"),
        *("bookkeeping.budget_duke", "bookkeeping.budget_umn"),
        *("bookkeeping.lower_umn_train", "bookkeeping.lower_umn_val"),
        *("bookkeeping.training_loss_duke", "bookkeeping.training_loss_umn"),
        *("bookkeeping.validation_loss_duke", "bookkeeping.training_loss_duke_alike"),
        *("bookkeeping.time_noise_duke", "bookkeeping.time_noise_duke_opacus"),
        *("bookkeeping.time_noise_umn", "bookkeeping.time_noise_umn_opacus"),
        *("bookkeeping.validation_loss_umn", "bookkeeping.validation_loss_umn_opacus"),
    ],
)
def test_published_data_are_known_by_their_loader_not_their_name(name):
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    found.cells["dataset"] += "_224"
    assert BY_ID[name].row(found)["verdict"] == SUPPORTED
    found.cells["dataset"] = found.cells["published"]
    found.cells["published"] = None  # phantoms
    assert BY_ID[name].row(found)["verdict"] == NOT_RUN


def test_a_range_is_of_losses_that_are_defined():
    """Training that diverged on one dataset leaves one loss there, which has no range."""
    found = CASES["bookkeeping.loss_range"][0](lambda run: -0.5)
    diverged = (found.cells["dataset"] == "umn") & (found.cells["engine"] == "bookkeeping")
    assert diverged.any()
    found.cells.loc[diverged, "mean_val_loss"] = float("nan")
    assert BY_ID["bookkeeping.loss_range"].row(found)["verdict"] == NOT_RUN


def test_dice_is_no_accuracy():
    cells = [cell(way, run, 2) for way in ("opacus", "laplace") for run in range(4)]
    row = BY_ID["local_dp.local_better_balanced_laplace"].row(made(cells, [0.4] * 4 + [0.8] * 4))
    assert row["verdict"] == NOT_RUN


def test_three_lucky_runs_of_one_of_nine_settings_prove_nothing():
    luck = (0.01, 0.011, 0.03)
    cells = [
        cell("scalar", run, beta, test_accuracy_best=1 + (luck[run] if beta == 9 else -0.01))
        for beta in range(1, 10)
        for run in range(3)
    ]
    row = BY_ID["local_dp.below_test_accuracy"].row(made(cells))
    assert row["value"] == pytest.approx(0.017)
    assert row["verdict"] == UNCLEAR
    assert "largest of 9 settings, 3 runs" in row["finding"]


def test_noise_of_a_schedule_is_not_that_of_its_name():
    make = CASES["bookkeeping.budget"][0]
    found = make(lambda run: 5.0)
    private = found.cells["mechanism"] == "way_2"
    found.cells.loc[private, "noise_schedule"] = "exponential"
    assert BY_ID["bookkeeping.budget"].row(found)["verdict"] == NOT_RUN


@pytest.mark.parametrize("seconds", [(1.0, 0.6, 0.55, 0.5), (1.0, 0.6, 0.55, None)])
def test_times_that_fall_all_the_way_are_not_least_in_the_middle(seconds):
    """One end is slower, the other is not, or was not run."""
    cells = [
        cell("opacus", run, level, dataset="umn", epoch_seconds=time)
        for run in range(RUNS)
        for level, time in zip(SIGMAS, seconds, strict=True)
        if time
    ]
    row = BY_ID["bookkeeping.time_noise_umn_opacus"].row(made(cells))
    assert row["verdict"] == (CONTRADICTED if all(seconds) else NOT_RUN)


TIMED = [
    *("bookkeeping.time_bookkeeping", "bookkeeping.time_alike_fastdp"),
    *("bookkeeping.time_noise_duke", "bookkeeping.time_noise_umn_opacus"),
    *("engines.time_bookkeeping", "engines.memory_fastdp", "engines.faster_bookkeeping"),
    *("engines.leaner_fastdp", "engines.speed_bookkeeping", "engines.saving_bookkeeping"),
    *("engines.opacus_overhead", "engines.ghost_clip"),
    *("clipping.time_nested", "clipping.time_automatic"),
    *("clipping.efficiency", "clipping.efficiency_nested"),
]


@pytest.mark.parametrize("name", TIMED)
def test_times_and_memory_are_compared_on_one_device(name):
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    expected = BY_ID[name].row(found)["value"]
    measured = ["step_seconds", "epoch_seconds", "peak_gpu_bytes"]
    found.cells.loc[found.cells.index[-1], ["device", *measured]] = "another", 99.0, 99.0, 99.0
    assert BY_ID[name].row(found)["value"] == pytest.approx(expected)
    found.cells["device"] = [f"device {n}" for n in range(len(found.cells))]
    assert BY_ID[name].row(found)["verdict"] == NOT_RUN


def test_a_slope_of_times_has_a_level_for_each_device():
    found = CASES["bookkeeping.time_noise_duke_opacus"][0](lambda run: 0.0)
    slow = found.cells["noise_multiplier"] > 0.6
    found.cells.loc[slow, ["device", "epoch_seconds"]] = "another", 9.0
    row = BY_ID["bookkeeping.time_noise_duke_opacus"].row(found)
    assert row["value"] == pytest.approx(0, abs=1e-9)


def test_patients_of_two_datasets_are_different_ones():
    names = ("duke", "umn")
    parts = [on_patients(lambda run: 0.1 * run) for _ in names]
    for name, part in zip(names, parts, strict=True):
        part.cells["dataset"] = part.segmented["dataset"] = name
    ease = parts[0].segmented["patient"].str[1:].astype(int) / 100
    for part in parts:
        automatic = part.segmented["mechanism"] == "way_3"
        part.segmented["dice"] += np.where(automatic, ease, 0)
    cells, segmented, predicted = (
        pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("cells", "segmented", "predicted")
    )
    one = BY_ID["clipping.utility"].row(results.Results(cells, segmented, predicted))
    renamed = segmented.assign(patient=segmented["dataset"] + segmented["patient"])
    other = BY_ID["clipping.utility"].row(results.Results(cells, renamed, predicted))
    assert (one["low"], one["high"]) == pytest.approx((other["low"], other["high"]), abs=1e-12)


def test_a_setting_counts_once_however_many_runs_and_patients_it_has():
    frame = pd.DataFrame(
        {"setting": [0, 0, 0, 0, 1], "run": [0, 0, 0, 1, 0], "effect": [1.0, 1, 1, 2, 4.5]}
    )
    frame = frame.assign(patient=range(5), fold=frame["run"], seed=0)
    assert base.mean(frame, frame["effect"]).value == pytest.approx(3.0)


def test_the_fastest_other_setting_may_be_another_one_in_each_run():
    """The mean is over the runs, whichever setting was the fastest."""
    cells = []
    for run in range(3):
        same = {"run": run, "model": "nested_unet"}
        cells.append(cell("ordinary", **same, epoch_seconds=1.0 if run else 9.0))
        cells.append(cell("automatic", level=0.5, **same, epoch_seconds=2.0))
        cells.append(cell("automatic", level=1.0, **same, epoch_seconds=4.0))
    row = BY_ID["clipping.time_automatic"].row(made(cells))
    assert row["value"] == pytest.approx((2 * 4 * 4) ** (1 / 3))
    assert "1 setting, 3 runs" in row["finding"]


def test_the_table_has_all_claims():
    table = claims.table(made([cell("ordinary", 0)]))
    assert list(table) == [
        *("id", "study", "source", "claim", "statistic", "finding", "value", "low", "high"),
        "verdict",
    ]
    assert set(table["study"]) == {"bookkeeping", "local_dp", "engines", "clipping"}
    assert (table["verdict"] == NOT_RUN).all()
    assert table["claim"].is_unique
    assert table[["source", "claim", "statistic"]].map(len).gt(5).all(axis=None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, SUPPORTED),
        (-0.2, -0.1, CONTRADICTED),
        (-0.1, 0.1, UNCLEAR),
        (0.9, 1.2, UNCLEAR),
        (1.0, 1.2, CONTRADICTED),
        (-0.1, 0.0, CONTRADICTED),
        (1e-17, 1e-17, CONTRADICTED),  # what rounding leaves of 0
        (math.nan, math.nan, UNCLEAR),
    ],
)
def test_an_interval_is_held_against_the_claimed_range(low, high, verdict):
    estimate = base.Estimate(0.0, low, high, "")
    assert base.judge(estimate, 0.0, 1.0) == verdict


def test_single_runs_are_judged_over_settings_and_say_so():
    make = CASES["bookkeeping.time_bookkeeping"][0]
    single = made(
        [
            row
            for row in make(lambda run: 1.5).cells.to_dict("records")
            if not row["fold"] + row["seed"]
        ]
    )
    row = BY_ID["bookkeeping.time_bookkeeping"].row(single)
    assert (
        row["finding"] == "Opacus takes 1.50 [1.50, 1.50] times as long (4 settings, single runs)."
    )
    assert row["verdict"] == SUPPORTED


def test_settings_that_share_a_training_are_one():
    """The luck of one ordinary training is in all that is held against it."""

    def against_ordinary(models):
        cells = [
            cell(name, 0, level, model, train_loss=loss)
            for model, luck in models.items()
            for name, level, loss in [("ordinary", None, 1.0), *(("flat", s, luck) for s in SIGMAS)]
        ]
        frame = made(cells).cells
        ordinary, private = frame[frame["engine"] == "none"], frame[frame["engine"] != "none"]
        return base.difference(base.paired(ordinary, private, "train_loss", base.WITHIN))

    alone = against_ordinary({"unet": 1.5})
    assert alone.value == pytest.approx(0.5)
    assert math.isnan(alone.low)
    assert alone.of == f"{len(SIGMAS)} settings, single runs"
    both = against_ordinary({"unet": 1.5, "nested_unet": 1.3})
    expected = stats.t.interval(0.95, 1, 0.4, 0.1)  # of two networks, not of eight settings
    assert (both.low, both.high) == pytest.approx(expected)


def test_seeds_of_a_fold_are_one_unit():
    effects = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.5, (1, 1): 0.6, (2, 0): 0.3, (2, 1): 0.5}
    cells = [
        cell(name, 0, 1.0, train_loss=1 + effect * (name == "opacus"))
        | {"fold": fold, "seed": seed}
        for (fold, seed), effect in effects.items()
        for name in ("flat", "opacus")
    ]
    frame = made(cells).cells
    pairs = base.paired(frame.iloc[::2], frame.iloc[1::2], "train_loss", base.CONTEXT)
    found = base.difference(pairs)
    folds = [0.2, 0.55, 0.4]
    expected = stats.t.interval(0.95, 2, np.mean(folds), stats.sem(folds))
    assert found[:3] == pytest.approx((np.mean(folds), *expected))
    assert found.of == "1 setting, 6 runs"


def test_one_pair_decides_nothing():
    cells = [cell("opacus", 0, 1.0, epoch_seconds=9.0), cell("book_keeping", 0, 1.0)]
    row = BY_ID["bookkeeping.time_bookkeeping"].row(made(cells))
    assert row["verdict"] == UNCLEAR
    assert row["value"] == pytest.approx(9)
    assert row["finding"].endswith("(1 setting, single runs, no interval).")


def test_a_mean_is_over_runs_and_patients():
    found = on_patients(lambda run: 0.1 * run)
    row = BY_ID["clipping.utility"].row(found)
    assert row["value"] == pytest.approx(0.15)
    half = stats.t.ppf(0.975, 3) * np.std([0, 0.1, 0.2, 0.3], ddof=1) / 2
    assert (row["low"], row["high"]) == pytest.approx((0.15 - half, 0.15 + half))
    assert "4 runs" in row["finding"]
