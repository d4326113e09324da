"""The figure of cost."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from studies import drawn, inputs, overlaps, study

from dpmedbench import figures


def test_cost_is_relative_to_non_private_and_says_what_was_measured():
    inputs = study("two_datasets").inputs()
    summary = inputs["summary"].set_index(["metric", "mechanism", "privacy"])["value"]
    figure = drawn("two_datasets", "cost")
    for axes, metric in zip(figure.axes, ("step_seconds_ratio", "peak_bytes_ratio"), strict=False):
        assert axes.get_xlabel().endswith("(× non-private)")
        bars = [bars for bars in axes.containers if "/" in bars.get_label()]
        assert len(bars) == 5
        for bar in bars:
            setting = tuple(bar.get_label().split("/"))
            expected = 1 if setting[1] == "none" else summary[(metric, *setting)]
            assert bar[0].get_width() == pytest.approx(expected)
    private = "bookkeeping_automatic_mixopt"
    mean, ratio = (summary[name, private].mean() for name in ("step_seconds", "step_seconds_ratio"))
    plain = summary["step_seconds", "non_private", "none"]
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == [f"{plain:.2g} s", f"{mean:.2g} s, {ratio:.2g}×"]
    assert "benchmarks/engines.py" in figure.axes[2].texts[0].get_text()


def test_captions_of_costs_and_times_tell_the_least_and_the_most_of_all_noise():
    """Not those of the least and the most noise, nor of the last epoch."""
    given = inputs("two_datasets")
    summary, history = given["summary"], given["history"]
    ratios = (summary["metric"] == "step_seconds_ratio") & (summary["privacy"] != "none")
    summary.loc[ratios, "value"] = [1.75, 1.06, 2.5, 1.7]
    assert figures.numbers("cost", **given).startswith(
        "Time of a step relative to non-private: Bookkeeping automatic mixopt 1.1× to 2.5×."
    )
    private = history["privacy"] != "none"
    history["seconds"] = np.where(private, 9.0, 4.0)
    history.loc[(history["privacy"] == "sigma0.5") & (history["epoch"] == 3), "seconds"] = 12.5
    assert figures.numbers("time_per_epoch", **given) == (
        "Shortest to longest epoch: Non-private 4 s, Bookkeeping automatic mixopt 9 s to 12.5 s."
    )


def test_cost_without_non_private_is_what_was_measured():
    figure = drawn("no_non_private", "cost")
    assert figure.axes[1].get_xlabel() == "peak memory (GiB)"
    assert "no non-private" in figure.get_suptitle()
    summary = study("no_non_private").inputs()["summary"]
    rows = summary[summary["metric"] == "peak_bytes"].set_index(["mechanism", "privacy"])["value"]
    for bars in figure.axes[1].containers:
        if "/" in bars.get_label():
            expected = rows[tuple(bars.get_label().split("/"))] / 2**30
            assert bars[0].get_width() == pytest.approx(expected)


def bars(axes):
    """The labels of the bars of a panel."""
    return [made.get_label() for made in axes.containers if "/" in made.get_label()]


def test_where_others_are_relative_a_model_without_non_private_has_no_bars():
    """Its seconds on an axis of ratios would be read as such."""
    figure = drawn("unequal", "cost")
    for axes, unit in zip(figure.axes[3:5], ("s", "GiB"), strict=True):
        assert axes.get_xlabel().endswith("(× non-private)")
        assert bars(axes) == axes.get_lines() == []
        why, *measured = (text.get_text().replace("\n", " ") for text in axes.texts)
        assert why == "no non-private run to compare with"
        assert len(measured) == 1
        assert re.fullmatch(rf"[\d.]+ {unit}", measured[0])
    assert len(bars(figure.axes[0])) == len(bars(figure.axes[1])) == 6


BATCHES = {"none": 90.0, "opacus": 40.0}


def test_the_largest_batch_comes_from_the_benchmark(tmp_path):
    inputs = study("three_cells").inputs()
    engines = inputs["summary"].drop_duplicates("engine")[
        ["engine", "mode", "clipping", "clipping_style"]
    ]
    table = engines.assign(network="unet", side=224, largest_batch=engines["engine"].map(BATCHES))
    table.to_parquet(tmp_path / "engines.parquet")
    figure = figures.draw("cost", **inputs | {"benchmark": [tmp_path / "engines.parquet"]})
    axes = figure.axes[2]
    widths = {bars.get_label(): bars[0].get_width() for bars in axes.containers
              if "/" in bars.get_label()}  # fmt: skip
    assert widths["non_private/none"] == 1
    assert widths["opacus_flat/sigma1"] == pytest.approx(40 / 90)
    assert [text.get_text() for text in axes.texts] == ["90, 1×", "40, 0.44×", "40, 0.44×"]
    # which is not what the cells were trained on
    words = " ".join(figure.get_suptitle().split())
    assert "largest batch: measured on networks of default width at 224 px" in words
    assert overlaps(figure) == []
    table.assign(network="resnet18").to_parquet(tmp_path / "engines.parquet")
    figure = figures.draw("cost", **inputs | {"benchmark": [tmp_path / "engines.parquet"]})
    assert "not measured" in figure.axes[2].texts[0].get_text()
    assert "default width" not in " ".join(figure.get_suptitle().split())


def test_a_network_that_was_not_measured_leaves_the_others_their_ticks(tmp_path):
    inputs = study("four_models").inputs()
    engines = inputs["summary"].drop_duplicates("engine")[
        ["engine", "mode", "clipping", "clipping_style"]
    ]
    engines.assign(
        network="unet", side=224, largest_batch=engines["engine"].map(BATCHES)
    ).to_parquet(tmp_path / "engines.parquet")
    figure = figures.draw("cost", **inputs | {"benchmark": [tmp_path / "engines.parquet"]})
    measured, empty = figure.axes[2], figure.axes[5]
    assert measured.get_xticks().tolist() == [0, 0.5, 1, 1.5]  # no axis has these by itself
    assert "not measured" in empty.texts[0].get_text()
    assert not empty.get_lines()


def test_a_network_too_large_without_privacy_has_no_bars_beside_ratios(tmp_path):
    inputs = study("unequal").inputs()
    engines = inputs["summary"].drop_duplicates("engine")[
        ["engine", "mode", "clipping", "clipping_style"]
    ].assign(side=224)  # fmt: skip
    large = engines["engine"].map({"opacus": 2.0})
    pd.concat(
        [
            engines.assign(network="unet", largest_batch=engines["engine"].map(BATCHES)),
            engines.assign(network="nested_unet", largest_batch=large),
        ]
    ).to_parquet(tmp_path / "engines.parquet")
    figure = figures.draw("cost", **inputs | {"benchmark": [tmp_path / "engines.parquet"]})
    assert "opacus_flat/sigma1" in bars(figure.axes[2])
    why, measured = (text.get_text().replace("\n", " ") for text in figure.axes[5].texts)
    assert why == "no non-private run to compare with"
    assert measured == "2"
    assert bars(figure.axes[5]) == figure.axes[5].get_lines() == []
