"""The look of the figures: nothing covers anything, units, colours, wording."""

from __future__ import annotations

import math
import re

import pytest
from made_up import grid, write
from studies import ALIKE, EVERY, OVER_EPOCHS, STUDIES, drawn, lines, overlaps, study

from dpmedbench import figures, tables

# What is laid out alike whatever the study, or as another figure is, is looked at in some studies.
SOME = {"two_datasets", "four_models"}
ONCE = {"dpsgd", "support"}
# What these studies are for.
FOR = {
    "crowd": {
        "time_per_epoch",
        "training_loss",
        "validation_accuracy",
        "mean_validation_loss",
        "cost",
        "test_masks",
    },
    "long_names": {"cost", "paired_differences", "time_noise"},
    "unequal": {"cost", "gradient_norms", "test_dice", "test_masks"},
}


def _looked_at(setup, name):
    if setup in FOR:
        return name in FOR[setup]
    alike = ONCE if setup in SOME else ONCE | ALIKE | {"example_scans", "network"}
    return setup == "one_cell" or name not in alike


CASES = [(setup, name) for setup in STUDIES for name in EVERY if _looked_at(setup, name)]


@pytest.mark.parametrize(("setup", "name"), CASES)
def test_no_text_covers_another_or_leaves_the_page(setup, name):
    for dataset in study(setup).datasets:
        assert overlaps(drawn(setup, name, dataset)) == []


def test_the_check_of_overlaps_can_fail():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    figure.text(0.99, 0.1, "a long text that leaves the page")
    assert overlaps(figure) == [("one", "other"), "a long text that leaves the page"]


@pytest.mark.parametrize(
    "name", sorted({*OVER_EPOCHS, "mean_validation_loss", "cost", "test_dice"})
)
def test_axes_have_units(name):
    figure = drawn("three_cells", name)
    labels = [axes.get_ylabel() for axes in figure.axes] + [a.get_xlabel() for a in figure.axes]
    with_unit = re.compile(r"\((s|images|× non-private|0 to 1|cross-entropy \+ Dice|at δ = 1e-5)\)")
    assert any(with_unit.search(label) for label in labels)
    bare = {"", "epoch", "noise multiplier σ"}
    assert all(label in bare or with_unit.search(label) for label in labels)


def test_a_mechanism_has_one_colour_in_every_figure():
    from matplotlib.colors import to_hex

    from dpmedbench.figures import palette

    expected = study("three_cells").inputs()["history"].attrs["colours"]
    assert expected["non_private"] == "#000000"
    assert len(set(expected.values())) == 3
    for name in OVER_EPOCHS:
        for label, line in lines(drawn("three_cells", name).axes[0]).items():
            colour = to_hex(line.get_color())
            assert colour == palette.shade(expected[label.split("/")[0]], 0, 1), name
    for name in ("mean_validation_loss", "cost"):
        for bars in drawn("three_cells", name).axes[0].containers:
            for bar in getattr(bars, "patches", ()):
                mechanism = bars.get_label().split("/")[0]
                assert to_hex(bar.get_facecolor()) == palette.shade(expected[mechanism], 0, 1), name


def test_colours_follow_the_configuration_and_differ():
    from dpmedbench.figures import palette

    for count in (1, 9, 10, 18, 25):
        names = {"plain": False} | {f"m{number}": True for number in range(count)}
        found = palette.assign(names)
        assert found["plain"] == "#000000"
        assert len(set(found.values())) == len(names)
    ordinary = palette.assign({f"m{number}": number == 5 for number in range(9)})
    assert len(set(ordinary.values())) == 9
    assert palette.assign({"z": True, "a": True})["z"] == palette.assign({"z": True})["z"]


def test_colours_do_not_depend_on_the_dataset(tmp_path):
    cells = grid(("duke",), mechanisms=("non_private", "b", "c"))
    cells += grid(("umn",), mechanisms=("non_private", "a", "c"))
    folders = write(tmp_path / "cells", cells, epochs=1, images=1)
    tables.collect("cost", folders, tmp_path / "cost.parquet")
    duke, umn = (figures.load(tmp_path / "cost.parquet", name) for name in ("duke", "umn"))
    assert set(duke["mechanism"]) == {"non_private", "b", "c"}
    assert duke.attrs["colours"] == umn.attrs["colours"]
    assert len(set(duke.attrs["colours"].values())) == 4
    order = {"c": True, "non_private": False, "b": True, "a": True}
    given = figures.load(tmp_path / "cost.parquet", "umn", order).attrs["colours"]
    assert given["c"] == duke.attrs["colours"]["a"]


def test_more_noise_is_lighter_and_levels_are_in_order():
    from matplotlib.colors import to_rgb

    from dpmedbench.figures import palette, wording

    light = [sum(to_rgb(palette.shade("#0173b2", rank, 4))) for rank in range(4)]
    assert light == sorted(light)
    assert len(set(light)) == 4
    labels = ["sigma1", "none", "sigma0.5", "sigma10", "eps8", "eps200", "eps0.5"]
    expected = ["eps200", "eps8", "eps0.5", "sigma0.5", "sigma1", "sigma10"]
    assert wording.noises(labels) == expected
    assert wording.noise_name("sigma0.5") == "σ = 0.5"
    assert wording.noise_name("eps8") == "target ε = 8"
    assert wording.noise_axis(["none", "sigma1"]) == ("noise multiplier σ", ["none", "1"])
    assert wording.noise_axis(["sigma1", "eps8"]) == ("noise", ["σ = 1", "target ε = 8"])


def test_axes_are_logarithmic_only_where_values_span_decades():
    from matplotlib.figure import Figure

    from dpmedbench.figures import style

    for values, expected in (
        ([1, 50], True),
        ([1, 20], False),
        ([0, 1000], False),
        ([1, math.inf, math.nan, 100], True),
        ([], False),
    ):
        axes = Figure().subplots()
        assert style.log_if_decades(axes, values) is expected
        assert axes.get_yscale() == ("log" if expected else "linear")
