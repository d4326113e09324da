"""The figures beyond the published ones: what is drawn, marked and said."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_scans import CLASSES
from studies import drawn, lines, overlaps, study, texts

from dpmedbench import figures
from dpmedbench.figures import (
    accountants,
    claims_verdicts,
    missing_cells,
    paired_differences,
    pareto,
    test_dice,
    text_table,
    time_noise,
    utility,
)

OF_DATASET = (
    "utility_epsilon",
    "pareto",
    "accountants",
    "gradient_norms",
    "clipped_fraction",
    "time_noise",
    "paired_differences",
)


def inputs(name, dataset="duke"):
    return study(name).inputs(dataset)


def said(figure):
    return " ".join(text.get_text().replace("\n", " ") for text, _ in texts(figure))


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


# Utility, privacy, cost


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
    assert "95 % intervals: bootstrap over patients and runs" in said(figure)


def test_points_of_one_epsilon_are_set_apart_and_keep_their_order():
    axes = figures.draw("utility_epsilon", **many(models=1)).axes[0]
    at = {label: line.get_xdata()[0] for label, line in lines(axes).items() if "sigma" in label}
    assert len(set(at.values())) == len(at) == 64
    levels = [[x for label, x in at.items() if label.endswith(f"sigma{s}")] for s in (1, 0.5)]
    assert max(levels[0]) < min(levels[1])


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


def test_a_setting_below_the_constant_predictor_is_dominated():
    given = inputs("three_cells")
    summary = given["summary"]
    constant = (summary["mechanism"] == "constant") & (summary["metric"] == "dice")
    summary.loc[constant, "value"] = 0.79
    settings, _ = pareto.settings(summary, given["privacy"])
    assert settings["dominated"].tolist() == (settings["value"] < 0.79).tolist()
    assert figures.numbers("pareto", **given).startswith("0 of 2 private settings")


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


# Accountants


def test_every_accountant_is_drawn_at_every_noise_level():
    privacy = inputs("no_non_private")["privacy"]
    absolute, relative = drawn("no_non_private", "accountants").axes
    one = privacy[privacy["mechanism"] == "opacus_flat"]
    for axes, scale in ((absolute, 1.0), (relative, one["epsilon_prv"].to_numpy())):
        found = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
        for name in accountants.ACCOUNTANTS:
            np.testing.assert_allclose(found[name], one[f"epsilon_{name}"] / scale)
    assert "δ = 1e-5" in absolute.get_ylabel()
    text = said(drawn("no_non_private", "accountants"))
    assert "can be too low" in text
    assert "Every private mechanism" in text


def test_mechanisms_that_spend_differently_have_a_row_each():
    given = inputs("no_non_private")
    privacy = given["privacy"]
    columns = [column for column in privacy if column.startswith("epsilon")]
    privacy.loc[privacy["mechanism"] == "bookkeeping", columns] *= 1.5
    groups = accountants.alike(privacy)
    assert [names for names, _ in groups] == [["opacus_flat"], ["bookkeeping"]]
    assert groups[0][1].index.tolist() == ["sigma0.3", "sigma0.5", "sigma0.7", "sigma1"]
    assert len(figures.draw("accountants", **given).axes) == 4


def test_an_accountant_without_a_bound_has_no_point_and_is_named():
    given = inputs("no_non_private")
    given["privacy"]["epsilon_gdp"] = math.inf
    figure = figures.draw("accountants", **given)
    assert "no bound, no point: GDP" in said(figure)
    assert overlaps(figure) == []


# Gradients


def test_norms_and_the_threshold_of_each_epoch_are_drawn():
    given = inputs("three_cells")
    history = given["history"]
    moving = history["mechanism"] == "opacus_flat"
    history.loc[moving, "effective_max_grad_norm"] = 0.5 + 0.1 * history["epoch"]
    flat, per_layer = figures.draw("gradient_norms", **given).axes
    for axes, mechanism in ((flat, "opacus_flat"), (per_layer, "opacus_per_layer")):
        part = history[history["mechanism"] == mechanism]
        found = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
        np.testing.assert_allclose(found[f"{mechanism}/sigma1"], part["grad_norm_p50"])
        np.testing.assert_allclose(found["R"], part["effective_max_grad_norm"])
        band = axes.collections[0].get_paths()[0].vertices
        assert band[:, 1].min() == pytest.approx(part["grad_norm_p10"].min())
        assert band[:, 1].max() == pytest.approx(part["grad_norm_p90"].max())


def test_the_share_of_clipped_gradients_is_of_private_training_alone():
    given = inputs("three_cells")
    given["history"]["clipped_fraction"] *= 0.5
    figure = figures.draw("clipped_fraction", **given)
    found = lines(figure.axes[0])
    assert set(found) == {"opacus_flat/sigma1", "opacus_per_layer/sigma1"}
    for label, line in found.items():
        part = given["history"]
        part = part[part["mechanism"] == label.partition("/")[0]]
        np.testing.assert_allclose(line.get_ydata(), part["clipped_fraction"])
    assert not re.search("not finite|Non-private", said(figure))


@pytest.mark.parametrize("name", ["gradient_norms", "clipped_fraction", "accountants"])
def test_what_only_private_training_has_is_explained_without_it(name):
    figure = drawn("non_private_alone", name)
    assert re.search("no gradient norms|no finite epsilon", said(figure))
    assert figures.numbers(name, **inputs("non_private_alone")) == ""


# Time against noise


def test_the_slope_of_time_over_noise_is_found_and_named():
    given = inputs("no_non_private")
    cost = given["cost"]
    opacus = cost["mechanism"] == "opacus_flat"
    jitter = np.resize([0.001, -0.002, 0.002, -0.001], len(cost))
    cost["step_seconds_p50"] = 0.2 + jitter
    cost.loc[opacus, "step_seconds_p50"] = 1 + 0.3 * cost["noise_multiplier"] + jitter
    found = time_noise.slopes(cost).set_index("mechanism")
    mean = cost.loc[opacus, "step_seconds_p50"].mean()
    assert found.loc["opacus_flat", "share"] == pytest.approx(0.3 / mean, rel=0.05)
    assert found.loc["opacus_flat", "low"] > 0 > found.loc["bookkeeping", "low"]
    assert figures.numbers("time_noise", **given).startswith(
        "1 of 2 slopes differ from 0: Opacus flat on U-Net (+2"
    )
    times, _ = figures.draw("time_noise", **given).axes
    line = next(line for line in times.get_lines() if line.get_label() == "opacus_flat/line")
    assert np.ptp(line.get_ydata()) == pytest.approx(0.3 * 0.7, rel=0.05)


def test_one_noise_level_has_no_slope_and_ordinary_training_no_place():
    figure = drawn("three_cells", "time_noise")
    assert "one noise level" in said(figure)
    assert "Non-private" not in said(figure)
    assert "no training with noise" in said(drawn("non_private_alone", "time_noise"))


# Differences


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


def test_times_are_no_scores():
    found = inputs("three_cells")["comparisons"]
    assert {"dice", "step_seconds"} == set(found["metric"])
    assert set(utility.scored(found)["metric"]) == {"dice"}


# Tables


def test_cells_left_out_and_missing_are_counted_by_reason():
    folders = [
        f"duke/{model}/fastdp/sigma{sigma}/fold0/seed0"
        for model in ("unet", "nested_unet")
        for sigma in (0.3, 1)
    ]
    given = {
        "left_out": {"fastDP is not installed": folders},
        "missing": {folder.replace("fastdp", "opacus"): "not started" for folder in folders[:3]},
    }
    figure = figures.draw("missing_cells", **given)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "fastDP is not installed 4 duke U-Net, Nested U-Net Fastdp σ = 0.3, σ = 1 Miss" in words
    assert "not started 3 duke" in words
    assert overlaps(figure) == []
    assert figures.numbers("missing_cells", **given) == "4 cells are left out, 3 are missing."


def test_nothing_left_out_or_missing_is_said():
    figure = figures.draw("missing_cells", left_out={}, missing={})
    assert said(figure).split().count("none") == 2


def test_hundreds_of_missing_cells_stay_on_a_page():
    missing = {
        f"duke/unet/mechanism_{k}/sigma{s}/fold0/seed{e}": f"stopped after epoch {e} " + "x " * 150
        for k in range(8)
        for s in range(1, 3)
        for e in range(30)
    }
    figure = figures.draw("missing_cells", left_out={}, missing=missing)
    assert figure.get_figheight() < 11
    assert f"and {30 - missing_cells.MOST} other reasons" in said(figure)
    assert overlaps(figure) == []


def test_each_verdict_has_a_sign_a_colour_and_a_word():
    verdicts = list(claims_verdicts.VERDICTS)
    claims = pd.DataFrame(
        [
            {"id": f"bookkeeping.claim_{k}", "study": "bookkeeping", "claim": f"Claim {k}."}
            | {"finding": "word " * 60, "verdict": verdict}
            for k, verdict in enumerate([*verdicts, "not run"])
        ]
    )
    figure = figures.draw("claims_verdicts", claims=claims)
    found = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    for verdict, (sign, colour) in claims_verdicts.VERDICTS.items():
        assert found[f"{sign} {verdict}"] == colour
    assert "2 more: claim 3, claim 4" in found
    assert not any(text.startswith("claim 3:") for text in found)
    assert len({colour for _, colour in claims_verdicts.VERDICTS.values()}) == 4
    assert overlaps(figure) == []
    assert figures.numbers("claims_verdicts", claims=claims) == (
        "Of 5 claims: 1 supported, 1 contradicted, 1 cannot be separated, 2 not run."
    )


def test_the_claims_of_a_run_are_drawn():
    from dpmedbench import claims

    table = figures.load(study("no_non_private").tables["claims"], None)
    figure = figures.draw("claims_verdicts", claims=table)
    assert len(table) == len(claims.CLAIMS)
    assert overlaps(figure) == []


def test_a_table_is_as_high_as_its_text():
    short, long = ([("a", "b")] * 2, [("a " * 60, "b")] * 2)
    heights = [
        text_table.figure(("x", "y"), rows, (1.0, 1.0))[0].get_figheight() for rows in (short, long)
    ]
    assert heights[1] > 2 * heights[0]


@pytest.mark.parametrize("name", OF_DATASET)
def test_what_the_data_say_is_a_sentence(name):
    given = inputs("no_non_private")
    words = figures.numbers(name, **given)
    assert words.endswith(".")
    assert "nan" not in words
