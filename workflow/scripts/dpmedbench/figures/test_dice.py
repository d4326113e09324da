"""Test Dice by class

Mean Dice of each class over the test patients of {dataset}, the images of a patient averaged first
and those left out in which it can not be scored, then over folds and seeds. Rows: the constant
predictor (every pixel the commonest class), then every mechanism ({mechanisms}) at each noise level
({noise}). Last column: mean over the classes without background. Hatched: no test image defines the
score. A thin layer or a small lesion has few pixels: its Dice falls first, and one patient can move
it; the mean hides both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from dpmedbench.figures import palette, style, wording
from dpmedbench.results import CONSTANT

if TYPE_CHECKING:
    import pandas as pd

ORDER = 90
NEEDS = ("summary", "store")
TASK = "segmentation"

MEAN = "mean without\nbackground"
ROW, COLUMN, LEAST = 0.17, 0.36, 0.7  # inches
FEW_ROWS = 40  # rows up to which the numbers are written into the map
CONSTANT_ROW = "Constant predictor"


def draw(summary: pd.DataFrame, store: str | Path) -> Figure:
    """A heat map a model: settings x classes."""
    models = list(summary["model"].unique())
    if not models:
        return style.empty(summary, "nothing was tested")
    classes = class_names(store)
    tables = [matrix(summary[summary["model"] == model], classes) for model in models]
    rows = [CONSTANT_ROW] * bool((summary["mechanism"] == CONSTANT).any())
    rows += [wording.setting(*setting) for setting in palette.settings(summary)]
    columns = list(tables[0].columns)
    across = max(1, min(len(models), int(5.2 / (COLUMN * len(columns)))))
    down = -(-len(models) // across)
    height = max(LEAST, ROW * min(len(rows), FEW_ROWS), 0.09 * len(rows))
    wide = across * COLUMN * len(columns) > 1.6
    figure = Figure(
        figsize=(style.DOUBLE if wide else style.SINGLE, down * (height + 1.3) + 0.45),
        layout="constrained",
    )
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    size = min(style.SMALL, 62 * height / len(rows))
    for axes, model, found in zip(grid, models, tables, strict=False):
        table = found.reindex(rows)
        axes.patch.set(facecolor="white", edgecolor=style.VOID, hatch="////", linewidth=0)
        sns.heatmap(
            table,
            ax=axes,
            vmin=0,
            vmax=1,
            cmap="cividis",
            annot=table.map(_two_digits) if len(rows) <= FEW_ROWS else False,
            fmt="",
            annot_kws={"fontsize": 6},
            cbar=False,
            linewidths=0.4,
            linecolor="white",
            yticklabels=rows,
        )
        axes.set_title(wording.name(model))
        axes.set(xlabel="", ylabel="")
        axes.tick_params(axis="both", length=0)
        axes.tick_params(axis="x", rotation=90)
        axes.tick_params(axis="y", rotation=0, labelsize=size)
        for place in np.flatnonzero(~table.index.isin(found.index)):
            axes.axhspan(place, place + 1, color="white", linewidth=0)
            axes.text(
                len(columns) / 2, place + 0.5, "no result", ha="center", va="center",
                fontsize=min(6, size), color=style.MUTED, style="italic",
            )  # fmt: skip
    for axes in grid[len(models) :]:
        figure.delaxes(axes)
    bar = figure.colorbar(
        grid[0].collections[0],
        ax=grid[: len(models)].tolist(),
        aspect=18,
        shrink=min(1, 2.2 / (down * (height + 1))),
        anchor=(0, 1),
    )
    bar.set_label("mean test Dice (0 to 1)")
    bar.outline.set_visible(False)
    tested = summary[summary["metric"] == "dice"]
    style.headline(
        figure,
        summary,
        f"{tested['patients'].max():g} test patients, {tested['images'].max():g} images",
        "single runs"
        if tested["runs"].max() == 1
        else f"means of up to {tested['runs'].max()} runs",
        "hatched: in no test image" if any(table.isna().any(axis=None) for table in tables) else "",
    )
    return figure


def numbers(summary: pd.DataFrame, store: str | Path) -> str:
    """The class that is found best and the one that is found worst, over all settings."""
    classes = class_names(store)
    said = []
    for model, part in summary[summary["mechanism"] != CONSTANT].groupby("model", sort=False):
        table = matrix(part, classes).drop(columns=MEAN).iloc[:, 1:].mean().dropna()
        if len(table) > 1:
            ends = " to ".join(
                f"{table[name]:.2f} for {name}" for name in (table.idxmax(), table.idxmin())
            )
            said.append(f"{wording.name(model)} {ends}")
    return f"Mean Dice of all settings, best to worst class: {'; '.join(said)}." if said else ""


def class_names(store: str | Path) -> list[str]:
    """The names of the classes of a dataset, class 0 first."""
    import h5py

    with h5py.File(store) as file:
        return json.loads(file.attrs["classes"])


def matrix(summary: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Mean Dice of one model: settings x (classes, mean of the classes but the first)."""
    columns = {f"dice_{number}": name for number, name in enumerate(classes)} | {"dice": MEAN}
    found = summary[summary["metric"].isin(columns)]
    rows = [
        CONSTANT_ROW if mechanism == CONSTANT else wording.setting(mechanism, privacy)
        for mechanism, privacy in zip(found["mechanism"], found["privacy"], strict=True)
    ]
    table = found.assign(row=rows).pivot_table("value", "row", "metric")
    return table.reindex(columns=list(columns)).rename(columns=columns)


def _two_digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
