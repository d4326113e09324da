"""Claims are judged on the arms, plans, modes and accuracies of their studies."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_up
import pandas as pd
import pytest
import yaml
from claim_cases import CASES
from made_up_claims import cell, made
from studies import write_tables

from dpmedbench import cells, claims, config, mechanisms, results
from dpmedbench.verdicts import CONTRADICTED, NOT_RUN, SUPPORTED

BY_ID = {claim.id: claim for claim in claims.CLAIMS}
STUDIES = Path(__file__).parents[1] / "config" / "studies"


@pytest.mark.parametrize(
    "plan",
    [
        *({"epochs": 50}, {"batch_size": 32}, {"delta": 1e-6}, {"sampling": "shuffled"}),
        {"num_records": 66},  # five folds of Duke
    ],
)
def test_another_plan_contradicts_no_published_epsilon(plan):
    found = CASES["bookkeeping.budget_reached"][0](lambda run: 0.5)
    assert BY_ID["bookkeeping.budget_reached"].row(found)["verdict"] == CONTRADICTED
    found = results.Results(found.cells.assign(**plan), found.segmented, found.predicted)
    assert BY_ID["bookkeeping.budget_reached"].row(found)["verdict"] == NOT_RUN


ARMS = [
    *("bookkeeping.budget", "bookkeeping.time_bookkeeping", "bookkeeping.training_loss_duke"),
    *("bookkeeping.validation_loss_duke", "bookkeeping.validation_loss"),
    *("bookkeeping.budget_umn", "bookkeeping.lower_umn_train", "bookkeeping.lower_umn_val"),
]


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize(
    ("engine", "other"),
    [
        ("opacus", {"layer_thresholds": "scaled"}),
        ("opacus", {"clipping_style": "flat", "layer_thresholds": "none"}),
        ("bookkeeping", {"clipping": "abadi"}),
        ("bookkeeping", {"mode": "mix_time"}),
        ("bookkeeping", {"clipping_style": "per_layer", "layer_thresholds": "scaled"}),
    ],
)
def test_an_arm_that_the_study_never_ran_decides_none_of_its_claims(name, engine, other):
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    found.cells.loc[found.cells["engine"] == engine, list(other)] = list(other.values())
    assert BY_ID[name].row(found)["verdict"] == NOT_RUN


def test_both_arms_are_named_beside_the_statistic():
    for name in ARMS:
        assert "per layer, R for every tensor" in BY_ID[name].statistic
        assert "flat automatic clipping" in BY_ID[name].statistic


@pytest.mark.parametrize("name", ["training_loss_duke_alike", "validation_loss_alike"])
def test_a_control_takes_one_clipping_function_on_both_sides(name):
    make, supporting, *_ = CASES[f"bookkeeping.{name}"]
    found = make(lambda run: supporting)
    found.cells.loc[found.cells["engine"] == "opacus", "clipping"] = "abadi"
    assert BY_ID[f"bookkeeping.{name}"].row(found)["verdict"] == NOT_RUN
    found.cells["clipping"] = "abadi"
    assert BY_ID[f"bookkeeping.{name}"].row(found)["verdict"] == SUPPORTED


def test_losses_of_book_keeping_on_umn_are_no_part_of_their_trend():
    found = CASES["bookkeeping.training_loss_noise"][0](lambda run: 0.5)
    falling = [
        cell("book_keeping", run, level, dataset="umn", train_loss=-9 * level)
        for run in range(4)
        for level in (0.3, 1.0)
    ]
    both = pd.concat([found.cells, pd.DataFrame(falling)], ignore_index=True)
    row = BY_ID["bookkeeping.training_loss_noise"].row(
        results.Results(both, found.segmented, found.predicted)
    )
    assert row["value"] == pytest.approx(0.5)


def test_the_finding_names_the_published_mode_that_was_fastest_in_each_run():
    """Ours is faster than both, and counts as neither."""
    cells = []
    for run in range(3):
        cells.append(cell("ordinary", run))
        for number, mode in enumerate(("mix_opt", "mix_ghost", "mix_flops")):
            seconds = 0.1 if mode == "mix_flops" else 2.0 + ((run + number) % 2)
            name = {"mode": mode, "mechanism": f"by_{mode}"}
            cells.append(cell("book_keeping", run, 1.0, step_seconds=seconds, **name))
        cells.append(cell("fastdp", run, 1.0, step_seconds=5.0))
    row = BY_ID["engines.time_bookkeeping"].row(made(cells))
    assert row["value"] == pytest.approx(2.0)
    assert "(by_mix_opt, by_mix_ghost)" in row["finding"]
    assert "1 setting, 3 runs" in row["finding"]
    assert BY_ID["engines.time_fastdp"].row(made(cells))["value"] == pytest.approx(5.0)


@pytest.mark.parametrize("name", ["memory", "leaner", "saving"])
def test_memory_of_a_whole_process_decides_no_claim(name, tmp_path):
    """Its libraries bring every ratio closer to 1."""
    folders = made_up.write(tmp_path / "cells", made_up.grid(), 2, images=1)
    read = results.read(write_tables(folders, tmp_path), {})
    assert read.cells["peak_bytes"].notna().all()
    assert read.cells["peak_gpu_bytes"].isna().all()
    assert "peak_gpu_bytes" not in read.numbers
    make, supporting, *_ = CASES[f"engines.{name}_bookkeeping"]
    found = make(lambda run: supporting)
    found.cells["peak_gpu_bytes"] = float("nan")
    assert BY_ID[f"engines.{name}_bookkeeping"].row(found)["verdict"] == NOT_RUN


def test_accuracy_is_the_published_one_and_the_balanced_one_stands_beside_it():
    """A model that learns to answer one class alone falls to 0.5 where the other falls to 0.6."""
    falling = [
        cell("opacus", run, noise, test_accuracy_best=accuracy)
        for run in range(4)
        for noise, accuracy in ((1, 0.8), (2, 0.7), (4, 0.6))
    ]
    found = made(falling, [0.8, 0.6, 0.4] * 4, classified=True)
    plain, balanced = (
        BY_ID[f"local_dp.decline{name}_dp_sgd"].row(found)["value"] for name in ("", "_balanced")
    )
    assert plain == pytest.approx(-0.1)
    assert balanced == pytest.approx(-0.2)


def test_thresholds_of_layers_are_told_by_what_an_image_adds(tmp_path):
    per_layer = {"scaled": 1.0, "whole": 9.06}
    every = [
        dataclasses.replace(one, clipping_style="per_layer") if one.mechanism in per_layer else one
        for one in made_up.grid(mechanisms=("non_private", "opacus_flat", *per_layer))
    ]
    folders = made_up.write(tmp_path / "cells", every, 2, images=1)
    for one, folder in zip(every, folders, strict=True):
        norm = {"effective_max_grad_norm": per_layer.get(one.mechanism, 1.0)}
        path = folder / "privacy.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | norm))
    read = results.read(write_tables(folders, tmp_path), {})
    found = read.cells.set_index("mechanism")
    thresholds = ["none", "none", "scaled", "same"]
    assert found["layer_thresholds"].tolist() == thresholds
    plan = found.loc["whole", ["num_records", "sampling", "delta"]]
    assert plan.tolist() == [88, "poisson", 1e-5]
    assert not {"layer_thresholds", *results.PLAN} & {*read.numbers}


def planned(study):
    """The cells of a study, with made-up results."""
    found = []
    for one in cells.every(study):
        way, level = study.mechanisms[one.mechanism], one.beta or one.noise_multiplier
        per_layer = way.clipping_style == "per_layer"
        traits = {
            "mechanism": one.mechanism,
            "engine": way.engine,
            "mode": way.mode or mechanisms.default_mode(way.engine),
            "clipping": way.clipping,
            "clipping_style": way.clipping_style,
            "layer_thresholds": way.layer_thresholds if per_layer else "none",
            "sparsification": way.sparsification and way.sparsification.final_rate,
        }
        label = ("laplace" if way.local else "opacus") if level else "ordinary"
        found.append(cell(label, one.seed, level, one.model, one.dataset, **traits))
    return found


def test_every_claim_has_its_cells_in_a_published_study():
    decided = set()
    for path in STUDIES.glob("*.yaml"):
        found = planned(config.load(yaml.safe_load(path.read_text())))
        classified = "local_dp" in path.stem
        table = claims.table(made(found, [0.4] * len(found), classified))
        decided |= {*table.loc[table["verdict"] != NOT_RUN, "id"]}
    assert {*BY_ID} - decided == set()
