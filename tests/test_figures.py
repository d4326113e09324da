"""The figures: what is drawn, and what is said where there is nothing to draw."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_up_scans import CLASSES
from studies import EVERY, OVER_EPOCHS, drawn, lines, overlaps, study, texts

from dpmedbench import figures


@pytest.mark.parametrize("name", OVER_EPOCHS)
@pytest.mark.parametrize("setup", ["two_datasets", "four_models"])
def test_lines_are_the_means_of_the_table(name, setup):
    frame = study(setup).inputs()["history"]
    figure = drawn(setup, name)
    for model, axes in zip(frame["model"].unique(), figure.axes, strict=True):
        found = lines(axes)
        part = frame[(frame["model"] == model) & np.isfinite(frame[OVER_EPOCHS[name]])]
        expected = part.groupby(["mechanism", "privacy", "epoch"])[OVER_EPOCHS[name]].mean()
        settings = {f"{mechanism}/{privacy}" for mechanism, privacy, _ in expected.index}
        assert set(found) == settings
        assert settings
        for setting, line in found.items():
            values = expected.loc[tuple(setting.split("/"))]
            np.testing.assert_array_equal(line.get_xdata(), values.index)
            np.testing.assert_allclose(line.get_ydata(), values.to_numpy())


def test_bands_are_minimum_and_maximum_over_runs():
    frame = study("four_models").inputs()["history"]
    axes = drawn("four_models", "validation_loss").axes[0]
    (band,) = [c for c in axes.collections if c.get_facecolor()[0][:3].tolist() == [0, 0, 0]]
    corners = band.get_paths()[0].vertices
    part = frame[(frame["model"] == "unet") & (frame["privacy"] == "none")]
    for epoch, values in part.groupby("epoch")["val_loss"]:
        found = corners[corners[:, 0] == epoch, 1]
        assert found.min() == pytest.approx(values.min())
        assert found.max() == pytest.approx(values.max())
        assert len(values) == 3


def test_single_runs_say_so_and_have_no_band():
    single = drawn("three_cells", "validation_loss")
    assert "single runs" in single.get_suptitle()
    assert not single.axes[0].collections
    several = drawn("four_models", "validation_loss")
    assert "up to 3 runs" in several.get_suptitle()


def test_references_of_dice():
    for dataset, graders in (("duke", [0.79]), ("umn", [])):
        inputs = study("two_datasets").inputs(dataset)
        inputs["history"]["constant_val_dice"] = 0.123
        axes = figures.draw("validation_dice", **inputs).axes[0]
        levels = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
        assert levels["constant predictor"] == pytest.approx(0.123)
        assert [v for k, v in levels.items() if k == "between graders"] == graders


def test_epsilon_states_delta_and_accountant_and_is_logarithmic():
    figure = drawn("two_datasets", "epsilon_over_epochs")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert "δ = 1e-5" in axes.get_ylabel()
    assert "PRV accountant" in figure.get_suptitle()
    assert "non-private training has no finite ε" in figure.get_suptitle().replace("\n", " ")
    assert not any(label.endswith("/none") for label in lines(axes))


def test_lines_that_coincide_are_all_seen():
    figure = drawn("no_non_private", "epsilon_over_epochs")
    patterns = {
        label.split("/")[0]: line._unscaled_dash_pattern
        for label, line in lines(figure.axes[0]).items()
    }
    (first, dashes), (second, others) = patterns.values()
    assert list(dashes) == list(others) == [4, 4]
    assert abs(first - second) == 4


def test_a_line_that_would_be_hidden_is_seen_around_a_thinner_one():
    inputs = study("two_datasets").inputs()
    frame = inputs["history"]
    one, other = sorted(set(frame["mechanism"]))
    private = frame[frame["mechanism"] == one]
    frame = pd.concat([frame, private.assign(mechanism="twin")])
    axes = figures.draw("training_loss", **(inputs | {"history": frame})).axes[0]
    widths = {label: line.get_linewidth() for label, line in lines(axes).items()}
    for label, width in widths.items():
        mechanism, _, privacy = label.partition("/")
        if mechanism == "twin":
            assert width < 0.5 * widths[f"{one}/{privacy}"]
        elif mechanism == other:
            assert width == max(widths.values())


def test_bars_are_means_over_epochs():
    frame = study("four_models").inputs()["history"]
    figure = drawn("four_models", "mean_validation_loss")
    setting = ["model", "mechanism", "privacy"]
    runs = frame.groupby([*setting, "fold", "seed"])["val_loss"].mean().groupby(setting)
    for model, axes in zip(frame["model"].unique(), figure.axes, strict=True):
        bars = [bars for bars in axes.containers if "/" in bars.get_label()]
        assert len(bars) == 5
        for bar in bars:
            key = (model, *bar.get_label().split("/"))
            assert bar[0].get_height() == pytest.approx(runs.mean()[key])
            whisker = bar.errorbar.lines[2][0].get_segments()[0][:, 1]
            assert whisker == pytest.approx([runs.min()[key], runs.max()[key]])


def test_cost_dots_and_ratios():
    frame = study("two_datasets").inputs()["cost"]
    time_axes, memory_axes = drawn("two_datasets", "cost").axes
    medians = frame.set_index(["mechanism", "privacy"])
    for label, line in lines(time_axes).items():
        row = medians.loc[tuple(label.split("/"))]
        assert line.get_xdata()[0] == pytest.approx(row["step_seconds_p50"])
    for label, line in lines(memory_axes).items():
        row = medians.loc[tuple(label.split("/"))]
        assert line.get_xdata()[0] == pytest.approx(row["peak_host_bytes"] / 2**30)
    spans = sorted(tuple(c.get_segments()[0][:, 0]) for c in time_axes.collections)
    expected = sorted(zip(frame["step_seconds_p10"], frame["step_seconds_p90"], strict=True))
    np.testing.assert_allclose(spans, expected)
    private = frame.loc[frame["privacy"] != "none", "step_seconds_p50"].mean()
    ratio = private / frame.loc[frame["privacy"] == "none", "step_seconds_p50"].item()
    assert [t.get_text() for t in time_axes.texts] == ["1×", f"{ratio:.2g}×"]
    assert "host" in memory_axes.get_xlabel()


def test_cost_prefers_gpu_memory_and_does_without_non_private():
    inputs = study("no_non_private").inputs()
    inputs["cost"]["peak_gpu_bytes"] = 3.0 * 2**30
    figure = figures.draw("cost", **inputs)
    assert "GPU" in figure.axes[1].get_xlabel()
    assert {line.get_xdata()[0] for line in lines(figure.axes[1]).values()} == {3.0}
    assert not figure.axes[0].texts
    assert "no non-private" in figure.get_suptitle()


def test_test_dice_is_the_mean_by_class():
    from dpmedbench.figures.test_dice import MEAN, matrix

    frame = study("two_datasets").inputs()["scores"]
    frame.loc[(frame["class"] == 8) & (frame["record"] == 0), "dice"] = math.nan
    table = matrix(frame)
    assert list(table.columns) == [*CLASSES["duke"], MEAN]
    rows = (frame["privacy"] == "sigma0.5") & (frame["predictor"] == "model")
    means = frame[rows].groupby("class")["dice"].mean()
    found = table.loc["Bookkeeping automatic mixopt, σ = 0.5"]
    np.testing.assert_allclose(found.to_numpy()[:-1], means.to_numpy())
    assert found[MEAN] == pytest.approx(means[1:].mean())
    constant = frame[frame["predictor"] == "constant"].groupby("class")["dice"].mean()
    np.testing.assert_allclose(table.loc["Constant predictor"].to_numpy()[:-1], constant.to_numpy())


# What is missing


@pytest.mark.parametrize("name", [name for name in EVERY if name != "example_scans"])
def test_a_dataset_without_rows_is_explained(name):
    inputs = study("three_cells").inputs("umn") | {"store": None}
    figure = figures.draw(name, **inputs)
    said = " ".join(text.get_text().replace("\n", " ") for text, _ in texts(figure))
    assert "dataset umn" in said
    assert overlaps(figure) == []


def test_only_non_private_has_an_epsilon_panel_that_says_why_it_is_empty():
    figure = drawn("non_private_alone", "epsilon_over_epochs")
    assert "no finite epsilon: non-private" in figure.axes[0].texts[0].get_text().replace("\n", " ")


def test_a_model_that_diverged_is_explained_and_others_are_drawn():
    inputs = study("four_models").inputs()
    frame = inputs["history"]
    frame.loc[frame["model"] == "unet", ["val_loss", "val_dice"]] = math.nan
    for name in ("validation_loss", "validation_dice", "mean_validation_loss"):
        figure = figures.draw(name, **inputs)
        assert figure.axes[0].texts, name
        assert not figure.axes[1].texts, name
        assert overlaps(figure) == [], name
    assert "values are not finite" in figure.get_suptitle().replace("\n", " ")


def test_single_missing_values_leave_the_rest():
    inputs = study("three_cells").inputs()
    frame = inputs["history"]
    frame.loc[(frame["privacy"] == "none") & (frame["epoch"] == 2), "val_loss"] = math.nan
    figure = figures.draw("validation_loss", **inputs)
    assert lines(figure.axes[0])["non_private/none"].get_xdata().tolist() == [1, 3, 4]
    assert "1 of 12 values" in figure.get_suptitle().replace("\n", " ")


def test_one_epoch_is_a_point_with_one_tick():
    axes = drawn("one_cell", "training_loss").axes[0]
    (line,) = lines(axes).values()
    assert line.get_marker() == "o"
    assert axes.get_xticks().tolist() == [1]
