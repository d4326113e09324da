"""Gradient norms against the threshold

Norms of the per-sample gradients in each epoch of training on {dataset}, before clipping: median
(line) and 10th to 90th percentile (band), means over folds and seeds; a row a mechanism that clips
gradients, the darker the less noise ({noise}). Red: R, the longest that a clipped gradient can be;
where each tensor is clipped by itself, R of all tensors together, which a gradient can stay below
and still be clipped in some; where R follows the norms, its value at the end of the epoch. Norms
far above R are all cut to one length, norms below it drown in noise that is made for R. This is
computed from the training data and is not covered by epsilon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpmedbench.figures import live, palette, style, wording
from dpmedbench.figures.clipped_fraction import NOTHING, measured
from dpmedbench.figures.curves import FEW_EPOCHS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 230
NEEDS = ("history",)

QUANTILES = ["grad_norm_p10", "grad_norm_p50", "grad_norm_p90"]
LIMIT = "effective_max_grad_norm"
RED = "#c1272d"
ROW, PAGE = 1.35, 8.5  # inches: of a mechanism, of all at most


def draw(history: pd.DataFrame) -> Figure:
    """A row a mechanism, a column a model, a line a noise level."""
    found = measured(history)
    found = found[np.isfinite(found["grad_norm_p50"])]
    models, mechanisms = list(found["model"].unique()), list(palette.colours(found))
    if found.empty:
        return style.empty(history, NOTHING)
    sections = [
        style.mechanism_section(found),
        style.noise_section(found),
        ("Threshold", [("R", Line2D([], [], color=RED, linewidth=1))]),
    ]
    entries = sum(len(rows) + 2 for _, rows in sections)
    figure = Figure(
        figsize=(style.DOUBLE, max(min(ROW * len(mechanisms), PAGE) + 0.7, 0.155 * entries + 0.3)),
        layout="constrained",
    )
    grid = figure.subplots(len(mechanisms), len(models), squeeze=False, sharex=True, sharey=True)
    levels = wording.noises(found["privacy"])
    for mechanism, row in zip(mechanisms, grid, strict=True):
        for model, axes in zip(models, row, strict=True):
            part = found[(found["mechanism"] == mechanism) & (found["model"] == model)]
            if part.empty:
                axes.text(
                    0.5, 0.5, "not trained", transform=axes.transAxes, ha="center",
                    color=style.MUTED, style="italic",
                )  # fmt: skip
            _lines(axes, part, mechanism, levels)
    for model, axes in zip(models, grid[0], strict=True):
        axes.set_title(wording.name(model))
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    figure.supylabel("gradient norm", fontsize=mpl.rcParams["axes.labelsize"])
    style.log_if_decades(grid[0, 0], found[[*QUANTILES, LIMIT]])
    style.legend(figure, sections, below=False)
    style.headline(figure, found, "line: median, band: 10th to 90th percentile")
    return figure


def numbers(history: pd.DataFrame) -> str:
    """The median norm in the last epoch, in units of R."""
    found = measured(history)
    ratio = found.assign(ratio=found["grad_norm_p50"] / found[LIMIT])
    said = live.last_epoch(ratio, "ratio", ".2g", " R")
    return said and f"Median norms. {said}"


def _lines(axes: Axes, part: pd.DataFrame, mechanism: str, levels: list[str]) -> None:
    for privacy in wording.noises(part["privacy"]):
        rank = levels.index(privacy)
        means = part[part["privacy"] == privacy].groupby("epoch")[[*QUANTILES, LIMIT]].mean()
        low, median, high, limit = (means[column] for column in means)
        tint = palette.shade(palette.colours(part)[mechanism], rank, len(levels))
        axes.fill_between(means.index, low, high, color=tint, alpha=0.3 / len(levels), linewidth=0)
        axes.plot(
            means.index, median, color=tint, linestyle=palette.dashes(rank),
            marker="o" if len(means) <= FEW_EPOCHS else "", label=f"{mechanism}/{privacy}",
        )  # fmt: skip
        axes.plot(means.index, limit, color=RED, linewidth=1, zorder=3, label="R")
        if len(means) == 1:
            axes.axhline(limit.iloc[0], color=RED, linewidth=1)
