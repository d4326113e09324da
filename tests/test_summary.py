"""The summary: a row a setting and metric, from the collected tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_up import grid, write
from scipy import stats
from studies import write_tables

from dpmedbench import published, results, summary, tables

CELLS = (
    grid(("duke",), sigmas=(0.5, 1.0), folds=2, seeds=2)
    + grid(("umn",), mechanisms=("non_private", "opacus_sparsified"))
    + grid(("aptos",), ("resnet18",), ("non_private", "opacus_flat"), sigmas=(1,), seeds=2)
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("summary")
    return write_tables(write(root / "cells", CELLS, epochs=3, images=6), root)


@pytest.fixture(scope="module")
def frame(paths):
    return tables.read(paths["summary"])


def row(frame, metric, dataset="duke", mechanism="opacus_flat", privacy="sigma1"):
    """The one row of a metric of a setting."""
    columns = ["dataset", "mechanism", "privacy", "metric"]
    found = frame.set_index(columns).loc[[(dataset, mechanism, privacy, metric)]]
    assert len(found) == 1
    return found.iloc[0].to_dict()


def test_a_row_a_setting_and_metric(frame):
    assert list(frame.columns) == summary.COLUMNS
    assert not frame.duplicated(["dataset", "model", "mechanism", "privacy", "metric"]).any()
    settings = {(c.dataset, c.model, c.mechanism, c.privacy) for c in CELLS}
    found = frame[frame["mechanism"] != "constant"]
    assert set(found[results.SETTING].itertuples(index=False, name=None)) == settings
    wide = {f"dice_{c}" for c in range(9)} | {"dice", "val_dice", "hd95", "boundary_mae"}
    assert wide <= set(frame.loc[frame["dataset"] == "duke", "metric"])
    assert "dice_2" not in set(frame.loc[frame["dataset"] == "umn", "metric"])
    named = {"accuracy", "auroc", "ece", "train_accuracy_best", "test_accuracy_best"}
    assert named <= set(frame.loc[frame["dataset"] == "aptos", "metric"])
    assert "dice" not in set(frame.loc[frame["dataset"] == "aptos", "metric"])


def test_dice_is_a_mean_over_patients_then_classes_then_runs(frame, paths):
    scores = tables.read(paths["scores"], dataset="duke")
    part = scores[
        (scores["mechanism"] == "opacus_flat")
        & (scores["privacy"] == "sigma1")
        & (scores["predictor"] == "model")
    ]
    patients = part.groupby(["fold", "seed", "class", "patient"])["dice"].mean()
    classes = patients.groupby(["fold", "seed", "class"]).mean().reset_index()
    expected = classes[classes["class"] > 0].groupby(["fold", "seed"])["dice"].mean().mean()
    found = row(frame, "dice")
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < found["value"] < found["high"]
    assert found["level"] == "patients and runs"
    assert (found["runs"], found["patients"], found["images"]) == (4, 3, 6)
    assert found["note"] == ""


def test_losses_and_costs_are_means_over_runs(frame, paths):
    history = tables.read(paths["history"], dataset="duke")
    part = history[(history["mechanism"] == "opacus_flat") & (history["privacy"] == "sigma1")]
    last = part[part["epoch"] == 3]
    found = row(frame, "val_loss")
    assert found["value"] == pytest.approx(last["val_loss"].mean())
    folds = last.groupby("fold")["val_loss"].mean()  # seeds of a fold share its images
    low, high = stats.t.interval(0.95, 1, folds.mean(), stats.sem(folds))
    assert (found["low"], found["high"]) == pytest.approx((max(low, 0), high))
    assert found["level"] == "runs"
    assert row(frame, "mean_val_loss")["value"] == pytest.approx(part["val_loss"].mean())
    cost = tables.read(paths["cost"], dataset="duke")
    step = cost.groupby(["mechanism", "privacy"])["step_seconds_p50"].mean()
    found = row(frame, "step_seconds_ratio")
    assert found["value"] == pytest.approx(
        step["opacus_flat", "sigma1"] / step["non_private", "none"]
    )
    assert 0 < found["low"] < found["value"] < found["high"]  # on a logarithmic scale
    assert found["low"] * found["high"] == pytest.approx(found["value"] ** 2)
    ordinary = frame[frame["mechanism"] == "non_private"]
    assert not ordinary["metric"].str.endswith("_ratio").any()


def test_a_cell_says_what_is_published_of_its_data_and_how_it_began(paths):
    found = results.read(paths, {"duke": "duke", "umn": "custom"}).cells
    published = found.groupby("dataset")["published"].first()
    assert (published["duke"], published["umn"]) == ("duke", "custom")
    assert found.loc[found["dataset"] == "aptos", "published"].isna().all()
    assert results.read(paths, {}).cells["published"].isna().all()
    history = tables.read(paths["history"])
    first = found.merge(history[history["epoch"] == 1], on=results.CELL, suffixes=("", "_then"))
    for name in ("epsilon", "val_pixel_accuracy"):
        then = f"{name}_then" if f"{name}_then" in first else name
        np.testing.assert_array_equal(first[f"first_{name}"], first[then])
    assert "first_epsilon" not in results.read(paths, {}).numbers


def test_memory_is_that_of_the_gpu_where_it_was_measured(paths, tmp_path):
    cost = tables.read(paths["cost"])
    cost["peak_gpu_bytes"] = np.where(cost["dataset"] == "umn", 7e9, math.nan)
    tables.write(cost, tmp_path / "cost.parquet")
    cells = results.read(paths | {"cost": tmp_path / "cost.parquet"}, {}).cells
    on_gpu = cells["dataset"] == "umn"
    assert (cells.loc[on_gpu, "peak_bytes"] == 7e9).all()
    host = cost.loc[cost["dataset"] != "umn", "peak_host_bytes"]
    np.testing.assert_array_equal(cells.loc[~on_gpu, "peak_bytes"], host)


def test_a_single_run_has_no_interval_and_says_so(frame):
    single = frame[(frame["dataset"] == "umn") & (frame["mechanism"] != "constant")]
    assert len(single) > 20
    assert single[["low", "high"]].isna().all(axis=None)
    assert (single["level"] == "none").all()
    assert single["note"].str.startswith("single run, no interval").all()
    several = frame[frame["runs"] > 1]
    assert not several["note"].str.contains("single run").any()
    defined = several[several["value"].notna()]
    assert defined[["low", "high"]].notna().all(axis=None)


def test_the_constant_predictor_is_over_patients_alone(frame):
    found = row(frame, "accuracy", "aptos", "constant", "none")
    assert (found["level"], found["runs"], found["engine"]) == ("patients", 1, "none")
    assert found["low"] < found["value"] < found["high"]
    assert found["epsilon"] == math.inf
    assert row(frame, "balanced_accuracy", "aptos", "constant", "none")["value"] == 0.2
    assert row(frame, "dice", "duke", "constant", "none")["value"] == 0
    assert row(frame, "dice_0", "duke", "constant", "none")["value"] == pytest.approx(0.9)
    assert row(frame, "dice", "duke", "constant", "none")["runs"] == 2  # folds


def test_the_constant_predictor_has_an_accuracy_of_images_too(frame, paths):
    history = tables.read(paths["history"], dataset="aptos")
    for metric in ("test_accuracy_best", "test_accuracy_last"):
        found = row(frame, metric, "aptos", "constant", "none")
        assert found["value"] == pytest.approx(history["constant_test_accuracy"].mean())
        assert found["note"] == summary.PER_IMAGE
        assert math.isnan(found["low"])
    segmented = frame[(frame["dataset"] == "duke") & (frame["mechanism"] == "constant")]
    assert not segmented["metric"].str.startswith("test_accuracy").any()


def test_settings_say_what_they_are(frame):
    found = row(frame, "dice", "umn", "opacus_sparsified")
    assert (found["engine"], found["mode"], found["sparsification"]) == ("opacus", "hooks", 0.9)
    assert math.isnan(row(frame, "dice")["sparsification"])
    assert row(frame, "dice")["noise_schedule"] == "constant"
    assert math.isfinite(row(frame, "dice")["epsilon"])
    assert row(frame, "dice", mechanism="non_private", privacy="none")["epsilon"] == math.inf
    assert row(frame, "dice")["noise_multiplier"] == 1


def test_epsilon_is_the_largest_of_the_runs(paths, tmp_path):
    privacy = tables.read(paths["privacy"])
    spent = (privacy["dataset"] == "duke") & (privacy["privacy"] == "sigma1")
    privacy.loc[spent, "epsilon"] = 3.0 + privacy["fold"]
    tables.write(privacy, tmp_path / "privacy.parquet")
    found = summary.table(results.read(paths | {"privacy": tmp_path / "privacy.parquet"}, {}))
    assert row(found, "dice")["epsilon"] == 4.0


def test_intervals_end_where_what_is_measured_does(frame):
    ends = frame[frame["low"].notna()].set_index("metric")[["low", "high"]]
    assert (ends["low"].drop("kappa") >= 0).all()
    shares = ends.filter(regex="accuracy|dice|miou|auroc|ece", axis=0)
    assert (shares["high"] <= 1).all()
    assert (shares["high"] == 1).any()
    assert ends.loc["kappa"].abs().max(axis=None) <= 1


def test_the_best_test_epoch_is_marked(frame):
    best = frame[(frame["metric"] == "test_accuracy_best") & (frame["mechanism"] != "constant")]
    assert len(best) == 2
    assert best["note"].str.contains("chosen on the test set").all()


def test_the_accuracies_of_one_table_are_all_of_images(frame, paths):
    scores = tables.read(paths["scores"], dataset="aptos")
    last = scores[(scores["predictor"] == "last_epoch") & (scores["metric"] == "accuracy")]
    found = row(frame, "test_accuracy_last", "aptos")
    assert found["value"] == pytest.approx(last["value"].mean())
    assert "an image counts once" in found["note"]
    assert "an image counts once" in row(frame, "test_accuracy_best", "aptos")["note"]


def test_classes_that_were_missed_are_said(paths, tmp_path):
    """HD95 is of the images whose prediction has the class: the fewer, the better it looks."""
    scores = tables.read(paths["scores"], dataset="umn")
    assert row(tables.read(paths["summary"]), "hd95", "umn", "opacus_sparsified")["note"] == (
        summary.SINGLE
    )
    lost = (scores["predictor"] == "model") & (scores["record"] == 1) & (scores["class"] == 1)
    scores.loc[lost, ["dice", "iou", "hd95", "boundary_mae"]] = 0, 0, math.nan, math.nan
    gone = (scores["predictor"] == "model") & (scores["record"] == 2) & (scores["class"] == 1)
    scores.loc[gone, ["dice", "iou", "hd95", "boundary_mae"]] = math.nan
    scores.loc[gone, "present"] = False
    tables.write(scores, tmp_path / "scores.parquet")
    found = summary.table(results.read(paths | {"scores": tmp_path / "scores.parquet"}, {}))
    for metric in ("hd95", "boundary_mae"):
        note = row(found, metric, "umn", "opacus_sparsified")["note"]
        assert note == f"{summary.SINGLE}; {summary.MISSED.format(1, 5)}"
    assert row(found, "dice", "umn", "opacus_sparsified")["note"] == summary.SINGLE


def test_ratios_are_of_one_device(paths, tmp_path):
    cost = tables.read(paths["cost"])
    expected = row(tables.read(paths["summary"]), "step_seconds_ratio")["value"]
    fast = (cost["mechanism"] == "non_private") & (cost["seed"] == 1)
    fast |= (cost["mechanism"] == "opacus_flat") & (cost["fold"] == 1) & (cost["seed"] == 1)
    again = cost.assign(device=cost["device"].where(~fast, "a fast GPU"))
    again.loc[fast, "step_seconds_p50"] = 1e-9
    tables.write(again, tmp_path / "cost.parquet")
    found = summary.table(results.read(paths | {"cost": tmp_path / "cost.parquet"}, {}))
    ratio = row(found, "step_seconds_ratio")
    assert ratio["value"] == pytest.approx(expected, rel=0.1)
    assert ratio["note"] == summary.ELSEWHERE.format(1, 4)
    assert row(found, "step_seconds")["note"] == summary.DEVICES
    assert row(found, "val_loss")["note"] == ""
    tables.write(cost.assign(device=cost["mechanism"]), tmp_path / "cost.parquet")
    found = summary.table(results.read(paths | {"cost": tmp_path / "cost.parquet"}, {}))
    assert not found["metric"].str.endswith("_ratio").any()


def test_noisy_test_images_have_rows_of_their_own(paths, tmp_path):
    scores = tables.read(paths["scores"])
    noisy = scores[scores["predictor"] == "model"].assign(predictor="model_on_noisy")
    noisy["dice"] /= 2
    noisy.loc[noisy["dataset"] == "aptos", "value"] /= 4
    tables.write(pd.concat([scores, noisy]), tmp_path / "scores.parquet")
    found = summary.table(results.read(paths | {"scores": tmp_path / "scores.parquet"}, {}))
    dice = row(found, "dice")["value"]
    assert row(found, "noisy_dice")["value"] == pytest.approx(dice / 2)
    seen = scores[(scores["dataset"] == "aptos") & (scores["mechanism"] == "opacus_flat")]
    accuracy = seen[(seen["predictor"] == "model") & (seen["metric"] == "accuracy")]
    assert row(found, "noisy_accuracy", "aptos")["value"] == pytest.approx(
        accuracy["value"].mean() / 4
    )


def test_one_patient_is_said(tmp_path):
    folders = write(tmp_path / "cells", grid(seeds=3), epochs=2, images=1)
    frame = tables.read(write_tables(folders, tmp_path)["summary"])
    found = row(frame, "dice")
    assert (found["patients"], found["level"], found["note"]) == (1, "runs", summary.ONE_PATIENT)
    assert found["low"] < found["high"]
    constant = row(frame, "dice", mechanism="constant", privacy="none")
    assert (constant["level"], constant["note"]) == ("none", summary.ALONE)
    assert math.isnan(constant["low"])


def test_a_study_of_one_task(tmp_path):
    for dataset, model, metric in (("duke", "unet", "dice"), ("aptos", "resnet18", "accuracy")):
        folders = write(tmp_path / dataset / "cells", grid((dataset,), (model,)), 2, 2)
        found = tables.read(write_tables(folders, tmp_path / dataset)["summary"])
        assert metric in set(found["metric"])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.7314, 0.702, 0.755), "0.731 [0.702, 0.755]"),
        ((0.7314,), "0.731"),
        ((0.7314, math.nan, math.nan), "0.731"),
        ((542.74, 530.2, 551.0), "543 [530, 551]"),
        ((1234567.0,), "1,234,567"),
        ((0.0021, -0.0279, 0.0301), "0.0021 [-0.0279, 0.0301]"),
        ((-3e-6, -0.2, 0.2), "0.000 [-0.200, 0.200]"),
        ((1.5, 0.25, 12.0), "1.5 [0.2, 12.0]"),
        ((2.04, 0.0344, 121.0), "2.04 [0.0344, 121]"),
        ((2.04, 0.0012, 3468.0), "2.04 [0.0012, 3,470]"),
        ((0.618, 1.64e-10, 2.33e9), "0.618 [<0.0001, >1,000,000]"),
        ((0.5, 0.0, 20.0), "0.5 [0, 20]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((-6e-17, -2e-15, 2e-15), "0 [0, 0]"),
        ((math.inf,), "∞"),
        ((math.nan,), "–"),
    ],
)
def test_numbers_in_words(numbers, expected):
    assert summary.text(*numbers) == expected


def test_the_published_table_in_its_shape():
    table = summary.accuracy_table(published.table("local_dp"))
    assert table.shape == (4, 7)
    assert list(table.index) == [
        (dataset, "resnet18", part)
        for dataset in ("chest_xray", "aptos")
        for part in ("train", "test")
    ]
    assert table.loc[("aptos", "resnet18", "train"), ("DP-SGD", "sigma4")] == "17.82"
    assert [mechanism for mechanism, _ in table.columns] == ["original"] + ["LDP"] * 3 + [
        "DP-SGD"
    ] * 3


def test_our_table_in_that_shape(frame):
    table = summary.accuracy_table(frame)
    assert list(table.index) == [("aptos", "resnet18", part) for part in ("train", "test")]
    assert list(table.columns) == [
        ("non_private", "none"),
        ("constant", "none"),
        ("opacus_flat", "sigma1"),
    ]
    assert table[("constant", "none")].to_list() == ["–", "60.00"]
    found = row(frame, "train_accuracy_best", "aptos")
    numbers = (100 * found[key] for key in ("value", "low", "high"))
    cell = table.loc[("aptos", "resnet18", "train"), ("opacus_flat", "sigma1")]
    assert cell == summary.text(*numbers, digits=4)
    dice = summary.accuracy_table(frame, {"test": "dice", "validation": "val_dice"})
    assert list(dice.loc["duke"].index) == [("unet", "test"), ("unet", "validation")]
    assert dice.loc[("duke", "unet", "validation"), ("constant", "none")] == "–"
