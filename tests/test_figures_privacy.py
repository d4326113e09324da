"""The figures of accountants, gradients and time over noise: what is drawn and said."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from studies import drawn, inputs, lines, overlaps, said

from dpmedbench import figures
from dpmedbench.figures import accountants, time_noise

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


def test_gdp_is_called_too_low_only_where_it_can_be():
    given = inputs("no_non_private")
    given["privacy"]["sampling"] = "shuffled"
    assert "too low" not in said(figures.draw("accountants", **given))


def test_of_several_groups_the_one_whose_epsilons_are_said_is_named():
    given = inputs("no_non_private")
    assert figures.numbers("accountants", **given).startswith("Epsilon at σ = 0.3 RDP ")
    privacy = given["privacy"]
    columns = [column for column in privacy if column.startswith("epsilon")]
    privacy.loc[privacy["mechanism"] == "bookkeeping", columns] *= 1.5
    words = figures.numbers("accountants", **given)
    assert words.startswith("Epsilon of Opacus flat at σ = 0.3 RDP ")


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


def test_one_label_is_for_all_rows_of_norms():
    history = inputs("three_cells")["history"]
    private = history[history["privacy"] != "none"]
    rows = pd.concat([private.assign(mechanism=f"mechanism_{k}") for k in range(11)])
    rows.attrs.clear()  # colours of other mechanisms
    figure = figures.draw("gradient_norms", history=rows)
    assert len(figure.axes) == 11
    assert overlaps(figure) == []
    assert said(figure).count("gradient norm") == 1


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


def test_a_slower_device_is_no_slope_over_noise():
    given = inputs("no_non_private")
    cost = given["cost"]
    slow = cost["noise_multiplier"] > 0.5
    cost["device"] = np.where(slow, "old", "new")
    cost["step_seconds_p50"] = np.where(slow, 2.0, 0.2) + np.resize([0.001, -0.001], len(cost))
    assert time_noise.slopes(cost)["share"].abs().max() < 0.02
    times, _ = figures.draw("time_noise", **given).axes
    levels = [
        line.get_ydata().mean()
        for line in times.get_lines()
        if line.get_label() == "opacus_flat/line"
    ]
    assert levels == pytest.approx([0.2, 2.0], rel=0.01)
