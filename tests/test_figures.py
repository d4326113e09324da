"""The figures: what is drawn, and what is said where there is nothing to draw."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from made_up_scans import CLASSES
from studies import EVERY, OF_ROWS, OVER_EPOCHS, drawn, inputs, lines, overlaps, said, study, texts

from dpmedbench import figures, support
from dpmedbench.figures import test_dice


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


def test_too_many_lines_are_drawn_a_panel_a_mechanism():
    frame = study("crowd").inputs()["history"]
    figure = drawn("crowd", "training_loss")
    mechanisms = [name for name in sorted(set(frame["mechanism"])) if name != "non_private"]
    pairs = [(name, model) for name in mechanisms for model in frame["model"].unique()]
    assert len(figure.axes) == len(pairs)
    for (mechanism, model), axes in zip(pairs, figure.axes, strict=True):
        found = lines(axes)
        assert {label.split("/")[0] for label in found} == {mechanism, "non_private"}
        rows = frame[(frame["model"] == model) & (frame["privacy"] == "sigma2")]
        expected = rows[rows["mechanism"] == mechanism]["train_loss"]
        np.testing.assert_allclose(found[f"{mechanism}/sigma2"].get_ydata(), expected)
    # of both scores only one is left, with the references of its model
    figure = drawn("crowd", "validation_accuracy")
    assert len(figure.axes) == len(pairs)
    assert "pixel accuracy is left out" in figure.get_suptitle().replace("\n", " ")
    for axes in figure.axes:
        assert {"constant predictor", "between graders"} <= {
            line.get_label() for line in axes.get_lines()
        }


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


def test_times_of_several_devices_are_said_to_be():
    given = inputs("three_cells")
    history = given["history"]
    assert "devices" not in said(figures.draw("time_per_epoch", **given))
    history.loc[history["mechanism"] == "opacus_flat", "device"] = "another"
    words = said(figures.draw("time_per_epoch", **given))
    assert "of several devices: made-up device, another" in words


def test_references_of_dice():
    real = {"duke": "duke", "umn": "umn"}
    for dataset, given, graders in (
        ("duke", real, [0.79]),
        ("umn", real, []),
        ("duke", {}, []),  # generated
        ("umn", {"umn": "duke"}, [0.79]),  # the scans of Duke by another name
    ):
        inputs = study("two_datasets").inputs(dataset) | {"real": given}
        inputs["history"]["constant_val_dice"] = 0.123
        pixels, dice = figures.draw("validation_accuracy", **inputs).axes
        levels = {line.get_label(): line.get_ydata()[0] for line in dice.get_lines()}
        assert levels["constant predictor"] == pytest.approx(0.123)
        assert [v for k, v in levels.items() if k == "between graders"] == graders
        levels = {line.get_label(): line.get_ydata()[0] for line in pixels.get_lines()}
        assert levels["constant predictor"] == pytest.approx(0.83)
        assert "between graders" not in levels


def test_pixel_accuracy_stands_above_dice_a_column_a_model():
    history = study("four_models").inputs()["history"]
    figure = drawn("four_models", "validation_accuracy")
    models = list(history["model"].unique())
    for place, axes in enumerate(figure.axes):
        column = ("val_pixel_accuracy", "val_dice")[place // len(models)]
        rows = history[history["model"] == models[place % len(models)]]
        means = rows.groupby(["mechanism", "privacy", "epoch"])[column].mean()
        for setting, line in lines(axes).items():
            np.testing.assert_allclose(line.get_ydata(), means.loc[tuple(setting.split("/"))])


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


def test_bars_and_whiskers_are_those_of_the_summary():
    summary = study("four_models").inputs()["summary"]
    rows = summary[summary["metric"] == "mean_val_loss"].set_index(
        ["model", "mechanism", "privacy"]
    )
    figure = drawn("four_models", "mean_validation_loss")
    assert "95 % intervals" in figure.get_suptitle()
    for model, axes in zip(summary["model"].unique(), figure.axes, strict=True):
        bars = [bars for bars in axes.containers if "/" in bars.get_label()]
        assert len(bars) == 5
        for bar in bars:
            row = rows.loc[(model, *bar.get_label().split("/"))]
            assert bar[0].get_height() == pytest.approx(row["value"])
            whisker = bar.errorbar.lines[2][0].get_segments()[0][:, 1]
            assert whisker == pytest.approx([row["low"], row["high"]])


def test_bars_of_many_ordinary_mechanisms_stand_side_by_side():
    summary = study("non_private_alone").inputs()["summary"]
    rows = summary[summary["metric"] == "mean_val_loss"]
    rows = pd.concat([rows.assign(mechanism=f"rate_{number}") for number in range(5)])
    del rows.attrs["colours"]
    axes = figures.draw("mean_validation_loss", summary=rows).axes[0]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert len(ends) == 5
    assert min(low for low, _ in ends) > axes.get_xlim()[0]
    assert max(high for _, high in ends) < axes.get_xlim()[1]
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(ends))


def test_bars_of_single_runs_have_no_whiskers_and_say_so():
    figure = drawn("three_cells", "mean_validation_loss")
    assert "single runs, no intervals" in figure.get_suptitle()
    bars = [bars for bars in figure.axes[0].containers if "/" in bars.get_label()]
    assert [bar.errorbar for bar in bars] == [None] * 3


def test_the_table_of_methods_is_that_of_the_registry():
    found = support.rows()
    figure = figures.draw("support", support=found)
    shown = [text.get_text() for text in figure.axes[0].texts]
    yes = sum(value is True for row in found for value in row.values())
    assert shown.count("✓") == yes
    assert shown.count("–") == sum(value is False for row in found for value in row.values())
    assert len(support.table()) == 2 + len(found)
    assert support.table()[2].count("yes") == sum(value is True for value in found[0].values())


# What is missing


@pytest.mark.parametrize("name", sorted({*EVERY} & {*OF_ROWS}))
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
    frame.loc[frame["model"] == "unet", ["val_loss", "val_dice", "val_pixel_accuracy"]] = math.nan
    summary = inputs["summary"]
    summary.loc[summary["model"] == "unet", ["value", "low", "high"]] = math.nan
    for name in ("validation_loss", "validation_accuracy", "mean_validation_loss"):
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


OF_DATASET = (
    "utility_epsilon",
    "pareto",
    "accountants",
    "gradient_norms",
    "clipped_fraction",
    "time_noise",
    "paired_differences",
)


def test_the_heat_map_has_the_dice_of_each_class_and_hatches_what_has_none():
    given = inputs("no_non_private")
    frame, summary = given["scores"], given["summary"]
    table = test_dice.matrix(summary, list(CLASSES["duke"]))
    assert list(table.columns) == [*CLASSES["duke"], test_dice.MEAN]
    for row, rows in (
        (
            "Bookkeeping, σ = 0.5",
            frame["mechanism"].eq("bookkeeping") & frame["privacy"].eq("sigma0.5"),
        ),
        ("Constant predictor", frame["predictor"] == "constant"),
    ):
        rows &= (frame["predictor"] == "constant") == (row == "Constant predictor")
        means = frame[rows].groupby("class")["dice"].mean()
        found = table.loc[row]
        np.testing.assert_allclose(found.to_numpy()[:-1], means.to_numpy())
        assert found[test_dice.MEAN] == pytest.approx(means[1:].mean())
    assert "hatched" not in said(drawn("no_non_private", "test_dice"))
    summary.loc[summary["metric"] == "dice_8", "value"] = math.nan
    figure = figures.draw("test_dice", **given)
    assert "hatched: in no test image" in said(figure)
    assert figure.axes[0].patch.get_hatch()
    assert figure.axes[0].collections[0].get_array().mask[:, 8].all()


def test_what_a_model_has_no_result_of_is_said_and_not_hatched():
    first, second = drawn("unequal", "test_dice").axes[:2]
    rows = [label.get_text() for label in first.get_yticklabels()]
    missing = [
        {rows[int(text.get_position()[1])] for text in axes.texts if text.get_text() == "no result"}
        for axes in (first, second)
    ]
    opacus = {f"Opacus flat, σ = {level}" for level in ("0.3", "0.5", "1")}
    assert missing == [set(), {"Non-private", *opacus}]
    assert len(second.patches) == len(missing[1]) == 4


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ("sigma", {"σ = 0.3", "σ = 0.5", "σ = 1"}),  # of which the first row has two
        ("beta", {"β = 0.5", "β = 1", "σ = 0.3", "σ = 0.5", "σ = 1"}),  # and none of the second
    ],
)
def test_every_column_of_masks_has_its_noise_above_it_once(noise, expected):
    given = inputs("unequal")
    for identity, _ in given["masks"]:
        if identity["mechanism"] == "bookkeeping":
            identity["privacy"] = identity["privacy"].replace("sigma", noise)
    figure = figures.draw("test_masks", **given)
    titles = Counter(axes.get_title() for axes in figure.axes)
    scans = titles["Truth"]
    assert {name for name in titles if "=" in name} == expected
    assert {titles[name] for name in expected} == {scans}
    assert overlaps(figure) == []


def test_masks_are_in_the_order_of_the_configuration():
    given = inputs("three_cells")
    colours = given["scores"].attrs["colours"]
    given["scores"].attrs["colours"] = dict(reversed(colours.items()))
    titles = [axes.get_title() for axes in figures.draw("test_masks", **given).axes]
    assert titles[2:5] == ["Non-private", "Opacus per-layer\nσ = 1", "Opacus flat\nσ = 1"]


@pytest.mark.parametrize("name", OF_DATASET)
def test_what_the_data_say_is_a_sentence(name):
    given = inputs("no_non_private")
    words = figures.numbers(name, **given)
    assert words.endswith(".")
    assert "nan" not in words
