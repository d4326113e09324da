"""The figure of paired differences: what is drawn, chosen and said."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from studies import inputs, overlaps, said

from dpmedbench import figures
from dpmedbench.figures import paired_differences, utility


def comparisons(pairs, levels=("sigma1",), verdict="cannot be separated"):
    rows = [
        {"dataset": "duke", "model": "unet", "privacy": level, "first": first, "second": second}
        | {"metric": "dice", "difference": -0.1 * number, "pairs": 4, "verdict": verdict}
        | {"low": -0.1 * number - 0.05, "high": -0.1 * number + 0.05, "note": ""}
        for number, (first, second) in enumerate(pairs, start=1)
        for level in levels
    ]
    return pd.DataFrame(rows)


def scores(found, ordinary=()):
    """A summary of mechanisms that `found` compares; of the private ones mechanism_3 is best."""
    return pd.DataFrame(
        [
            {"dataset": "duke", "model": "unet", "mechanism": name, "metric": "dice"}
            | {"privacy": "none" if name in ordinary else "sigma1"}
            | {"value": 0.9 if name in ordinary else 0.5 + 0.1 * (name == "mechanism_3")}
            for name in sorted({*found["first"], *found["second"]})
        ]
    )


def test_differences_are_drawn_with_interval_and_verdict():
    pairs = [("non_private", "a"), ("non_private", "b"), ("a", "b")]
    found = comparisons(pairs, ("sigma0.5", "sigma1"))
    found.loc[:1, "verdict"] = ["lower", "cannot be separated"]
    found.loc[2:3, ["verdict", "low", "high"]] = ["single runs", math.nan, math.nan]
    figure = figures.draw(
        "paired_differences", comparisons=found, summary=scores(found, {"non_private"})
    )
    (axes,) = figure.axes
    marks = {}
    for line in axes.get_lines()[:-1]:
        filled = line.get_markerfacecolor() != "white"
        marks[line.get_label()] = (line.get_marker(), filled, line.get_xdata()[0])
    assert marks["non_private/a/sigma0.5"] == ("o", True, pytest.approx(-0.1))
    assert marks["non_private/a/sigma1"] == ("o", False, pytest.approx(-0.1))
    assert marks["non_private/b/sigma1"] == ("x", True, pytest.approx(-0.2))
    assert [text.get_text() for text in axes.texts] == [
        "1 lower, 1 cannot be separated",
        "single runs",
        "cannot be separated",
    ]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == ["A − Non-private", "B − Non-private", "B − A"]
    spans = [[x for x, _ in c.get_segments()[0]] for c in axes.collections]
    assert pytest.approx([-0.35, -0.25]) in spans
    assert overlaps(figure) == []
    assert figures.numbers("paired_differences", comparisons=found) == (
        "Of 6 comparisons: 3 cannot be separated, 2 single runs, 1 lower."
    )


def test_of_many_pairs_those_with_ordinary_training_and_with_the_best_are_shown():
    names = [f"mechanism_{number}" for number in range(8)]
    pairs = [("non_private", name) for name in names]
    pairs += [(one, other) for k, one in enumerate(names) for other in names[k + 1 :]]
    found = comparisons(pairs, [f"sigma{k}" for k in range(1, 9)])
    summary = scores(found, {"non_private"})
    kept = paired_differences.chosen(found, summary)
    assert {tuple(pair) for pair in kept[["first", "second"]].to_numpy()} == {
        pair for pair in pairs if {"non_private", "mechanism_3"} & set(pair)
    }
    figure = figures.draw("paired_differences", comparisons=found, summary=summary)
    assert "those with training without privacy or with the best private" in said(figure)
    assert overlaps(figure) == []
    assert len(paired_differences.chosen(comparisons(pairs[:15]), summary)) == 15


def test_where_nothing_is_ordinary_no_private_mechanism_is_taken_for_it():
    names = [f"mechanism_{number}" for number in range(8)]
    pairs = [(one, other) for k, one in enumerate(names) for other in names[k + 1 :]]
    found = comparisons(pairs)
    kept = paired_differences.chosen(found, scores(found))
    assert {tuple(pair) for pair in kept[["first", "second"]].to_numpy()} == {
        pair for pair in pairs if "mechanism_3" in pair
    }
    words = said(figures.draw("paired_differences", comparisons=found, summary=scores(found)))
    assert "of many pairs, those with the best private mechanism" in words
    assert "without privacy" not in words


def test_a_single_mechanism_has_nothing_to_be_compared_with():
    figure = figures.draw("paired_differences", **inputs("non_private_alone"))
    assert "no private mechanism to compare with another" in said(figure)


def test_times_are_no_scores():
    found = inputs("three_cells")["comparisons"]
    assert {"dice", "step_seconds"} == set(found["metric"])
    assert set(utility.scored(found)["metric"]) == {"dice"}
