"""Epsilon under every accountant

What the same training on {dataset} spends by each way of accounting, at delta = {delta} and for
the same noise ({noise}), sampling rate and steps; unit: one {unit}. Left: epsilon; right: relative
to the accountant of this study, {accountant}. RDP, PRV and PLD are upper bounds that differ in how
much they give away: RDP composes moments and loses most when it turns them into an epsilon; PRV and
PLD compose the distribution of the privacy loss itself and agree but for their discretisation. GDP
(crosses) is exact for shuffled batches; for others it is the limit of many small steps and not a
bound: an approximation that can be too low, so that less is promised than was spent, and is far too
high where the noise is small. Two epsilons can only be compared under one accountant and at one
delta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpmedbench.figures import style, utility, wording
from dpmedbench.privacy import accounting

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 220
NEEDS = ("privacy",)

ACCOUNTANTS = {
    "rdp": ("^", style.MUTED),
    "prv": ("o", "black"),
    "pld": ("D", "#9a9a9a"),
    "gdp": ("x", "black"),
}
APART = 0.16  # of the distance between two noise levels
SAME = 1e-6  # relative difference of equal epsilons


def draw(privacy: pd.DataFrame) -> Figure:
    """A row for all mechanisms that spend alike: epsilon, and relative to the study's."""
    groups = alike(privacy)
    if not groups:
        return style.empty(privacy, "no finite epsilon: no private training")
    figure = Figure(
        figsize=(style.DOUBLE, (style.PANEL_HEIGHT + 0.1) * len(groups) + 0.45),
        layout="constrained",
    )
    grid = figure.subplots(len(groups), 2, squeeze=False)
    for (mechanisms, spent), (absolute, relative) in zip(groups, grid, strict=True):
        own = privacy.loc[privacy["mechanism"].isin(mechanisms), "accountant"].iloc[0]
        _dots(absolute, spent)
        _dots(relative, spent.div(spent[own], axis=0))
        style.log_if_decades(absolute, spent, always=True)
        style.log_if_decades(relative, spent.div(spent[own], axis=0))
        relative.axhline(1, color=style.MUTED, linewidth=0.8, zorder=1)
        names = [wording.name(name) for name in mechanisms]
        absolute.set_title("Every private mechanism" if len(groups) == 1 else ", ".join(names))
        absolute.set_ylabel(f"epsilon{utility.delta(privacy)}")
        relative.set_ylabel(f"epsilon / epsilon of {own.upper()}")
    marks = [(name.upper(), _mark(name)) for name in ACCOUNTANTS]
    style.legend(figure, [("Accountant", marks)], below=False)
    unbounded = [
        name.upper()
        for name in ACCOUNTANTS
        if not all(np.isfinite(spent[name]).all() for _, spent in groups)
    ]
    drawn_by = privacy["sampling"].dropna().unique()
    approximate = any(accounting.approximate("gdp", sampling) for sampling in drawn_by)
    style.headline(
        figure,
        privacy,
        "GDP is an approximation that can be too low" if approximate else "",
        f"no bound, no point: {', '.join(unbounded)}" if unbounded else "",
    )
    return figure


def numbers(privacy: pd.DataFrame) -> str:
    """What each accountant says at the least and at the most noise, of the first group."""
    groups = alike(privacy)
    if not groups:
        return ""
    mechanisms, spent = groups[0]
    said = []
    for level in dict.fromkeys([spent.index[0], spent.index[-1]]):
        row = spent.loc[level]
        each = ", ".join(f"{name.upper()} {wording.number(row[name])}" for name in row.index)
        said.append(f"at {wording.noise_name(level)} {each}")
    whose = f" of {' and '.join(map(wording.name, mechanisms))}" if len(groups) > 1 else ""
    return f"Epsilon{whose} {'; '.join(said)}."


def alike(privacy: pd.DataFrame) -> list[tuple[list[str], pd.DataFrame]]:
    """Mechanisms that spend the same at every noise level they share, with what they spend.

    The table of epsilons has a row a noise level, least noise first, and a column an accountant.
    Models, folds and seeds that spend differently are averaged.
    """
    private = privacy[np.isfinite(privacy["epsilon"])]
    groups: list[tuple[list[str], pd.DataFrame]] = []
    for mechanism in private["mechanism"].unique():
        of_mechanism = private[private["mechanism"] == mechanism].groupby("privacy")
        spent = of_mechanism[[f"epsilon_{name}" for name in ACCOUNTANTS]].mean()
        spent.columns = list(ACCOUNTANTS)
        for place, (names, found) in enumerate(groups):
            shared = found.index.intersection(spent.index)
            if len(shared) and np.allclose(
                found.loc[shared], spent.loc[shared], rtol=SAME, atol=0, equal_nan=True
            ):
                groups[place] = ([*names, mechanism], found.combine_first(spent))
                break
        else:
            groups.append(([mechanism], spent))
    return [(names, spent.loc[wording.noises(spent.index)]) for names, spent in groups]


def _dots(axes: Axes, spent: pd.DataFrame) -> None:
    axis_name, ticks = wording.noise_axis(list(spent.index))
    for place, name in enumerate(ACCOUNTANTS):
        x = np.arange(len(spent)) + APART * (place - (len(ACCOUNTANTS) - 1) / 2)
        marker, colour = ACCOUNTANTS[name]
        axes.plot(x, spent[name], linestyle="none", marker=marker, color=colour, label=name)
    axes.set_xticks(range(len(spent)), ticks)
    axes.set_xlim(-0.6, len(spent) - 0.4)
    axes.set_xlabel(axis_name)
    axes.grid(False, axis="x")


def _mark(name: str) -> Line2D:
    marker, colour = ACCOUNTANTS[name]
    return Line2D([], [], linestyle="none", marker=marker, color=colour)
