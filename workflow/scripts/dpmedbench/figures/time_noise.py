"""Step time against noise

Whether training on {dataset} takes longer with more noise: {noise}. Left: median time of an
optimiser step of each cell after warm-up, with the least-squares line of each mechanism, at a level
of its own on each device. Right: its slope as a share of the mechanism's mean time, with the 95 %
interval of the regression. None is expected: a noise multiplier changes a factor and not the work.
An interval without 0 points at the machine first (cells that ran side by side, clocks, a warm
cache), and one of twenty does so by chance. Where few cells are fitted the interval is wide; with
two, or one noise level on each device, there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from dpmedbench import statistics
from dpmedbench.figures import palette, style, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 240
NEEDS = ("cost",)

ROW, LEAST = 0.24, 1.5  # inches: a mechanism, a model
TIME, NOISE = "step_seconds_p50", "noise_multiplier"


def draw(cost: pd.DataFrame) -> Figure:
    """A row a model: times over noise, and slopes."""
    private = cost[cost[NOISE] > 0]
    models = list(private["model"].unique())
    if not models:
        return style.empty(cost, "no training with noise on its gradients")
    counts = [private.loc[private["model"] == model, "mechanism"].nunique() for model in models]
    heights = [max(LEAST, ROW * count) + 0.45 for count in counts]
    figure = Figure(figsize=(style.DOUBLE, sum(heights) + 0.45), layout="constrained")
    grid = figure.subplots(
        len(models), 2, squeeze=False, sharex="col", height_ratios=heights, width_ratios=[1.25, 1]
    )
    found = slopes(private)
    for model, (times, forest) in zip(models, grid, strict=True):
        of_model = found[found["model"] == model]
        _times(times, private[private["model"] == model], of_model)
        _forest(forest, of_model, palette.colours(private))
        times.set_title(wording.name(model), loc="left")
    for times in grid[:, 0]:
        if not style.log_if_decades(times, private[TIME]):
            times.set_ylim(0, 1.05 * times.get_ylim()[1])
    if len(levels := set(private[NOISE])) == 1:
        grid[-1, 0].set_xticks(list(levels))
    grid[-1, 0].set_xlabel("noise multiplier σ")
    grid[-1, 1].set_xlabel("slope (% of the time of a step per 1 σ)")
    _symmetric(grid[0, 1], 100 * found[["share", "low", "high"]].to_numpy())
    devices = ", ".join(private["device"].dropna().unique())
    style.headline(figure, cost, f"device: {devices}", "right: slope with 95 % interval")
    return figure


def numbers(cost: pd.DataFrame) -> str:
    """How many slopes differ from 0, and which."""
    found = slopes(cost[cost[NOISE] > 0]).dropna(subset="low")
    if found.empty:
        return ""
    apart = found[(found["low"] > 0) | (found["high"] < 0)]
    names = ", ".join(
        f"{wording.name(row.mechanism)} on {wording.name(row.model)} ({_words(row)})"
        for row in apart.itertuples()
    )
    return f"{len(apart)} of {len(found)} slopes differ from 0{f': {names}' if names else ''}."


def slopes(private: pd.DataFrame) -> pd.DataFrame:
    """A row a model and mechanism: slope per sigma, as `share` of the mean time, with its interval.

    `mean` is that time. Each device has a level of its own. NaN as `statistics.slope` has them.
    """
    import pandas as pd

    rows = []
    for model in private["model"].unique():
        for mechanism in palette.colours(private):
            part = private[(private["model"] == model) & (private["mechanism"] == mechanism)]
            if len(part):
                mean = part[TIME].mean()
                slope = np.array(statistics.slope(part, TIME, NOISE, ["device"])) / mean
                rows.append([model, mechanism, mean, *slope])
    return pd.DataFrame(rows, columns=["model", "mechanism", "mean", "share", "low", "high"])


def _times(axes: Axes, part: pd.DataFrame, found: pd.DataFrame) -> None:
    colours = palette.colours(part)
    for row in found.itertuples():
        cells = part[part["mechanism"] == row.mechanism]
        colour = colours[row.mechanism]
        axes.plot(
            cells[NOISE], cells[TIME], "o", color=colour, alpha=0.7, markeredgewidth=0,
            label=f"{row.mechanism}/cells",
        )  # fmt: skip
        for _, here in cells.groupby("device", dropna=False):
            ends = here[NOISE].agg(["min", "max"])
            line = here[TIME].mean() + row.mean * row.share * (ends - here[NOISE].mean())
            axes.plot(ends, line, color=colour, label=f"{row.mechanism}/line")
    axes.set_ylabel("time of a step (s)")
    axes.margins(x=0.06)


def _forest(axes: Axes, found: pd.DataFrame, colours: dict[str, str]) -> None:
    for y, row in enumerate(found.itertuples()):
        colour = colours[row.mechanism]
        axes.plot(100 * row.share, y, "o", color=colour, label=f"{row.mechanism}/slope")
        axes.hlines(y, 100 * row.low, 100 * row.high, color=colour, linewidth=1.2)
        axes.text(
            1.03, y, _words(row), transform=axes.get_yaxis_transform(), va="center",
            fontsize=style.SMALL, color=style.MUTED,
        )  # fmt: skip
    axes.axvline(0, color=style.MUTED, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(found)), wording.rows(found["mechanism"]))
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _words(row) -> str:
    if not np.isfinite(row.share):
        return "one noise level"  # of each device
    if not np.isfinite(row.low):
        return f"{_percent(row.share)} %, too few cells"
    return f"{_percent(row.share)} % [{_percent(row.low)}, {_percent(row.high)}]"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _symmetric(axes: Axes, values: np.ndarray) -> None:
    """Limits that show 0 in the middle."""
    reach = 1.1 * np.nanmax(np.abs(values), initial=1.0)
    axes.set_xlim(-reach, reach)
