"""The figures of utility over epsilon and cost: what is drawn, marked and said."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import drawn, inputs, lines, overlaps, said

from dpmedbench import figures
from dpmedbench.figures import pareto, utility


def many(mechanisms=8, levels=8, models=3):
    """A made-up summary and privacy table of 195 settings, 24 at each noise level."""
    rng = np.random.default_rng(0)
    rows = [
        {"model": f"model_{m}", "mechanism": f"mechanism_{k}", "privacy": f"sigma{0.5 * (s + 1):g}"}
        | {"engine": "opacus", "value": rng.uniform(0.1, 0.7)}
        | {"epsilon": 500 * 0.5**s * (1 + 1e-13 * k)}  # means of runs that spend the same
        for m in range(models)
        for k in range(mechanisms)
        for s in range(levels)
    ]
    rows += [
        {"model": f"model_{m}", "mechanism": name, "privacy": "none", "engine": "none"}
        | {"epsilon": math.inf, "value": value}
        for m in range(models)
        for name, value in (("non_private", 0.8), ("constant", 0.05))
    ]
    frame = pd.DataFrame(rows).assign(
        dataset="duke", metric="dice", level="patients and runs", runs=2, patients=4, images=44
    )
    frame = frame.assign(low=frame["value"] - 0.04, high=frame["value"] + 0.05)
    ratio = frame[frame["engine"] == "opacus"].assign(metric="step_seconds_ratio")
    summary = pd.concat([frame, ratio.assign(value=1 + 3 * ratio["value"])], ignore_index=True)
    privacy = frame.assign(delta=1e-5, epsilon_per_image=math.inf)
    return {"summary": summary, "privacy": privacy}


def test_utility_is_drawn_over_epsilon_with_its_intervals():
    given = many(mechanisms=3, levels=4, models=2)
    figure = figures.draw("utility_epsilon", **given)
    of_dice = given["summary"].query("metric == 'dice'")
    for model, axes in zip(of_dice["model"].unique(), figure.axes, strict=True):
        found = lines(axes)
        spans = {tuple(y for _, y in c.get_segments()[0]) for c in axes.collections}
        for row in of_dice[of_dice["model"] == model].itertuples():
            line = found[f"{row.mechanism}/{row.privacy}"]
            assert line.get_ydata()[0] == pytest.approx(row.value)
            if row.privacy != "none":
                assert line.get_xdata()[0] == pytest.approx(row.epsilon, rel=0.2)
                assert any(span == pytest.approx((row.low, row.high)) for span in spans)
        assert axes.get_xscale() == "log"
    assert "95 % intervals over patients and runs" in said(figure)


def test_points_of_one_epsilon_are_set_apart_and_keep_their_order():
    axes = figures.draw("utility_epsilon", **many(models=1)).axes[0]
    at = {label: line.get_xdata()[0] for label, line in lines(axes).items() if "sigma" in label}
    assert len(set(at.values())) == len(at) == 64
    levels = [[x for label, x in at.items() if label.endswith(f"sigma{s}")] for s in (1, 0.5)]
    assert max(levels[0]) < min(levels[1])


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_points_of_many_mechanisms_stay_near_their_epsilon_and_on_the_axis(levels):
    given = many(mechanisms=12, levels=levels, models=1)
    axes = figures.draw("utility_epsilon", **given).axes[0]
    low, high = axes.get_xlim()
    near = (high / low) ** 0.041  # 4 % of the axis
    at = {label: line.get_xdata()[0] for label, line in lines(axes).items() if "sigma" in label}
    rows = given["summary"].query("metric == 'dice' and engine == 'opacus'")
    assert len(rows) == len(at) == 12 * levels
    for row in rows.itertuples():
        x = at[f"{row.mechanism}/{row.privacy}"]
        assert low < x < high
        assert row.epsilon / near < x < row.epsilon * near


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (4.02, 58.5, ["5", "10", "20", "50"]),  # one decade inside
        (4.02, 411, ["10", "30", "100", "300"]),  # two
        (0.4, 411, ["1", "10", "100"]),
        (4.02, 5.7, ["5"]),
        (8, 8, ["8"]),
    ],
)
def test_an_axis_of_epsilon_has_several_ticks(low, high, ticks):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    utility.epsilon_axis(axes, [low, high, math.inf], "")
    assert [label.get_text() for label in axes.get_xticklabels()] == [*ticks, "∞"]


def test_single_runs_have_points_without_intervals_and_say_so():
    figure = drawn("three_cells", "utility_epsilon")
    assert "single runs, no intervals" in said(figure)
    assert not any(len(c.get_segments()[0]) for c in figure.axes[0].collections)


def test_noise_on_images_is_placed_at_the_epsilon_of_a_whole_image():
    given = inputs("no_non_private")
    for name in ("summary", "privacy"):
        frame = given[name]
        private = frame["privacy"] != "none"
        frame.loc[private, "epsilon"] = math.inf
        frame.loc[private, "privacy"] = frame["privacy"].str.replace("sigma", "beta")
    levels = given["privacy"]["privacy"]
    given["privacy"]["epsilon_per_image"] = levels.map({"beta0.3": 5000.0, "beta1": 1500.0})
    given["privacy"].loc[levels == "beta0.5", "epsilon_per_image"] = math.inf
    axes = figures.draw("utility_epsilon", **given).axes[0]
    at = {label: line.get_xdata()[0] for label, line in lines(axes).items()}
    name = "bookkeeping"
    assert at[f"{name}/beta0.3"] == pytest.approx(5000, rel=0.05)
    assert at[f"{name}/beta1"] == pytest.approx(1500, rel=0.05)
    assert axes.get_xlim()[1] > at[f"{name}/beta0.5"] > 1.1 * 5000
    assert axes.get_xticklabels()[-1].get_text() == "∞"
    assert axes.get_xticks()[-1] == pytest.approx(at[f"{name}/beta0.5"], rel=0.05)


points = st.lists(
    st.tuples(st.sampled_from([1.0, 5.0, math.inf]), st.floats(0.5, 4), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@given(points)
def test_what_is_dominated_is_so_by_what_is_not(settings):
    found = np.array(settings)
    lost = pareto.dominated(found, found)
    assert not lost.all()
    for point in found[lost]:
        better = (found[:, 0] <= point[0]) & (found[:, 2] >= point[2])
        assert (better & (found[:, 1] <= 1.1 * point[1])).sum() > 1
    costs = found[:, 1].max() + 10
    assert pareto.dominated(found, np.array([[0.0, 0.0, 1.0]])).all()
    assert not pareto.dominated(found, np.array([[0.0, costs, 1.0]])).any()


def test_dominated_by_hand():
    settings = np.array([[1, 2, 0.5], [1, 2, 0.4], [1, 2.05, 0.5], [1, 1.0, 0.4], [9, 1, 0.4]])
    assert pareto.dominated(settings, settings).tolist() == [False, True, False, False, True]


def test_filled_points_are_those_that_nothing_dominates():
    given = many(mechanisms=3, levels=4, models=1)
    settings, unit = pareto.settings(**given)
    assert unit == "×"
    assert settings.loc[settings["engine"] == "none", "cost"].eq(1).all()
    assert settings["epsilon"].nunique() == 5
    ratios = given["summary"].query("metric == 'step_seconds_ratio'")
    np.testing.assert_allclose(settings.query("engine != 'none'")["cost"], ratios["value"])
    axes = figures.draw("pareto", **given).axes[0]
    faces = {c.get_label(): len(c.get_facecolor()) for c in axes.collections}
    for row in settings.itertuples():
        assert faces[f"{row.mechanism}/{row.privacy}"] == (not row.dominated)
    assert 0 < settings["dominated"].sum() < len(settings)


def test_names_in_the_table_are_black_whatever_the_colour_of_the_mechanism():
    table = drawn("three_cells", "pareto").axes[1]
    names = [text for text in table.texts if text.get_text()[:6] in ("Opacus", "Non-pr")]
    assert {text.get_color() for text in names} == {"black"}
    marks = [text.get_color() for text in table.texts if text.get_text() == "●"]
    assert len(marks) == len(set(marks)) == len(names)


def test_a_setting_below_the_constant_predictor_is_dominated():
    given = inputs("three_cells")
    summary = given["summary"]
    constant = (summary["mechanism"] == "constant") & (summary["metric"] == "dice")
    summary.loc[constant, "value"] = 0.79
    settings, _ = pareto.settings(summary, given["privacy"])
    assert settings["dominated"].tolist() == (settings["value"] < 0.79).tolist()
    assert figures.numbers("pareto", **given).startswith("0 of 2 private settings")
    assert "none is above constant" in said(figures.draw("pareto", **given))
    assert "none is above constant" not in said(drawn("three_cells", "pareto"))


def test_a_time_that_is_not_known_neither_wins_nor_loses():
    given = inputs("three_cells")
    summary = given["summary"]
    ratio = (summary["metric"] == "step_seconds_ratio") & (summary["mechanism"] == "opacus_flat")
    summary.loc[ratio, "value"] = math.nan
    dice = summary["metric"] == "dice"
    for better, worse in (("opacus_flat", "opacus_per_layer"), ("opacus_per_layer", "opacus_flat")):
        summary.loc[dice & (summary["mechanism"] == better), "value"] = 0.5
        summary.loc[dice & (summary["mechanism"] == worse), "value"] = 0.4
        settings, _ = pareto.settings(summary, given["privacy"])
        assert settings["cost"].isna().sum() == 1
        assert not settings["dominated"].any()
        best = settings.set_index("mechanism")["best"]
        assert best[better]
        assert not best[worse]


def test_without_ordinary_training_cost_is_in_seconds():
    figure = drawn("no_non_private", "pareto")
    assert re.search(r"0\.\d+ s", said(figure))
    assert "×" not in said(figure)


@pytest.mark.parametrize("name", ["utility_epsilon", "pareto"])
def test_hundreds_of_settings_are_readable(name):
    figure = figures.draw(name, **many())
    assert overlaps(figure) == []
    assert all(len(axes.texts) <= 9 for axes in figure.axes[::2])
    assert len(figures.numbers(name, **many())) < 700
