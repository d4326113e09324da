"""Utility, privacy and cost together

What can be had on {dataset}: score on the test set over the privacy spent ({accountant}, delta =
{delta}), a point a mechanism ({mechanisms}) and noise level ({noise}), its area the time of a step,
relative to training without privacy. Filled: no other setting is at least as good in all three
(and better in one), nor is the constant predictor, which costs nothing. Hollow: some other is. The
line joins the best scores at each epsilon; the table names the filled points, with 95 % intervals.
Times that differ by less than a tenth count as equal; one that is not known (training on another
device than that without privacy) makes no point hollow, its own neither. Points are compared by
their means alone: one may be hollow or filled by chance where intervals overlap. Time is of this
machine and batch size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpmedbench.figures import palette, style, text_table, utility, wording
from dpmedbench.results import CONSTANT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 210
NEEDS = ("summary", "privacy")

NAMED = 9
ALIKE = 0.1  # share of the time of a step
HEADS = ("", "", "not dominated", "ε", "score", "time")
WIDTHS = (0.2, 0.14, 1.83, 0.48, 1.08, 0.42)  # inches


def draw(summary: pd.DataFrame, privacy: pd.DataFrame) -> Figure:
    """A row a model: the points, and those not dominated by name."""
    points, unit = settings(summary, privacy)
    models = list(points["model"].unique())
    if not models:
        return style.empty(summary, "no scores: nothing was tested")
    sections = [style.mechanism_section(points), ("Time of a step", _sizes(points, unit))]
    lines = max(points["mechanism"].nunique(), 4)
    figure = Figure(
        figsize=(style.DOUBLE, (style.PANEL_HEIGHT + 0.2) * len(models) + 0.155 * lines + 0.6),
        layout="constrained",
    )
    table_width = sum(WIDTHS)
    grid = figure.subplots(
        len(models), 2, squeeze=False,
        width_ratios=[style.DOUBLE - table_width - 0.6, table_width],
    )  # fmt: skip
    for model, (axes, table) in zip(models, grid, strict=True):
        part = points[points["model"] == model].sort_values(["epsilon", "value"])
        infinite = utility.epsilon_axis(axes, part["epsilon"], utility.delta(privacy))
        part = part.assign(x=part["epsilon"].replace(np.inf, infinite))
        named = _named(part)
        _points(axes, part, unit)
        for row in constant(summary, model).itertuples():
            axes.axhline(
                row.value, color=style.MUTED, linestyle=style.DASHED, linewidth=1, zorder=1.9
            )
        _numbers(axes, named, part)
        axes.set_title(wording.name(model))
        axes.set_ylabel(utility.label(points))
        rows = [_row(number, row, palette.colours(points), unit) for number, row in named.items()]
        rows = rows or [["", "", "none is above constant", "", "", ""]]
        text_table.write(table, HEADS, rows, WIDTHS, least=style.PANEL_HEIGHT - 0.3)
    style.legend(figure, sections, below=True)
    style.headline(figure, summary, utility.interval_note(points), "dashed: constant predictor")
    return figure


def numbers(summary: pd.DataFrame, privacy: pd.DataFrame) -> str:
    """How many settings of each model are not dominated."""
    points, _ = settings(summary, privacy)
    said = []
    for model, part in points.groupby("model", sort=False):
        private = part[part["privacy"] != "none"]
        if len(private):
            said.append(
                f"{int((~private['dominated']).sum())} of {len(private)} private settings of "
                f"{wording.name(model)} are not dominated"
            )
    return "; ".join(said) + "." if said else ""


def settings(summary: pd.DataFrame, privacy: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A row a setting with `cost`, `dominated` and `best` (the highest at its epsilon or less).

    Also the unit of cost: "×" relative to non-private training, "s" where there is none.
    """
    scores = utility.with_epsilon(utility.trained(utility.scored(summary)), privacy)
    relative = summary[summary["metric"] == "step_seconds_ratio"]
    unit = "×" if relative["value"].notna().any() else "s"
    costs = relative if unit == "×" else summary[summary["metric"] == "step_seconds"]
    points = scores.merge(
        costs[[*style.SETTING, "value"]].rename(columns={"value": "cost"}), "left", style.SETTING
    )
    points.attrs = summary.attrs
    if unit == "×":
        points.loc[points["engine"] == "none", "cost"] = 1.0
    points["dominated"] = points["best"] = False
    for model, part in points.groupby("model"):
        fixed = [(0.0, 0.0, row.value) for row in constant(summary, model).itertuples()]
        points.loc[part.index, "dominated"] = _lost(part, fixed)
        points.loc[part.index, "best"] = ~_lost(part.assign(cost=0.0), fixed)
    return points, unit


def _lost(part: pd.DataFrame, fixed: list[tuple[float, ...]]) -> np.ndarray:
    """Whether each point of `part` is dominated by another of them or by one of `fixed`.

    An epsilon or cost that is not known neither wins nor loses.
    """
    values = part[["epsilon", "cost", "value"]].astype(float)
    own, others = (
        values.fillna({"epsilon": unknown, "cost": unknown, "value": 0.0}).to_numpy()
        for unknown in (0.0, np.inf)
    )
    return dominated(own, np.array([*others, *fixed]))


def dominated(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of `points` is dominated by one of `others`; columns epsilon, cost, value.

    Costs that differ by less than `ALIKE` count as equal.
    """
    a, b = (values * [-1, -1, 1] for values in (points[:, None], others[None]))
    least, more = (a * [1, 1 + by, 1] for by in (ALIKE, -ALIKE))
    return ((b >= least).all(-1) & (b > more).any(-1)).any(-1)


def constant(summary: pd.DataFrame, model: str) -> pd.DataFrame:
    """The score of the constant predictor beside `model`."""
    scores = utility.scored(summary)
    return scores[(scores["mechanism"] == CONSTANT) & (scores["model"] == model)]


def _area(cost: object, unit: str) -> object:
    """Points squared; 1 ×, 0.1 s and an unknown cost look alike."""
    return 22 * np.maximum(np.nan_to_num(cost if unit == "×" else 10 * cost, nan=1.0), 0.2)


def _points(axes: Axes, part: pd.DataFrame, unit: str) -> None:
    colours = palette.colours(part)
    best = part[part["best"]]
    if len(best) > 1:
        axes.step(best["x"], best["value"], where="post", color=style.MUTED, linewidth=0.8)
    for row in part.itertuples():
        colour = colours[row.mechanism]
        axes.scatter(
            row.x, row.value, s=_area(row.cost, unit), edgecolors=colour, linewidths=0.9,
            color="none" if row.dominated else colour, zorder=2 if row.dominated else 3,
            alpha=0.6 if row.dominated else 1, label=f"{row.mechanism}/{row.privacy}",
        )  # fmt: skip


def _named(part: pd.DataFrame) -> dict[int, object]:
    """The points that the table names, by number: of too many, those best at their epsilon."""
    found = part[~part["dominated"]]
    if len(found) > NAMED:
        found = found[found["best"]]
    if len(found) > NAMED:
        found = found.iloc[np.linspace(0, len(found) - 1, NAMED).round().astype(int)]
    return dict(enumerate(found.itertuples(), start=1))


def _numbers(axes: Axes, named: dict[int, object], part: pd.DataFrame) -> None:
    """Write the numbers of points above them, each where no other is."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    to_axes = axes.transData - axes.transAxes
    taken = list(to_axes.transform(part[["x", "value"]].to_numpy(dtype=float)))
    for number, row in named.items():
        at = np.add(to_axes.transform((row.x, row.value)), [0, 0.075])
        while any((np.abs(at - other) < [0.05, 0.07]).all() for other in taken):
            at = np.add(at, [0, 0.02])
        taken.append(at)
        axes.text(
            *at, str(number), transform=axes.transAxes, ha="center", va="center", fontsize=6.5
        )


def _row(number: int, row, colours: dict[str, str], unit: str) -> list[text_table.Cell]:
    interval = f" [{row.low:.2f}, {row.high:.2f}]" if np.isfinite(row.low) else ""
    return [
        str(number),
        ("●", colours[row.mechanism]),
        wording.setting(row.mechanism, row.privacy),
        wording.number(row.epsilon),
        f"{row.value:.2f}{interval}",
        f"{row.cost:.2g}{unit}" if np.isfinite(row.cost) else "",
    ]


def _sizes(points: pd.DataFrame, unit: str) -> list[tuple[str, Line2D]]:
    costs = points["cost"].dropna()
    if costs.empty:
        return []
    shown = sorted({float(f"{costs.quantile(q):.1g}") for q in (0, 0.5, 1)})
    return [
        (
            f"{value:g} {unit}",
            Line2D(
                [], [], linestyle="none", marker="o", color=style.MUTED,
                markersize=float(np.sqrt(_area(value, unit))),
            ),
        )
        for value in shown
    ]  # fmt: skip
