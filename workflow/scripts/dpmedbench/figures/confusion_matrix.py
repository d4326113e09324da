"""Confusion matrices of the test set

Of the test images of {dataset} in each class (rows), the share that is given each class (columns),
over all folds and seeds. First the constant predictor, the commonest class of the training set,
then the models ({models}) of every mechanism ({mechanisms}) and noise level ({noise}), as reported.
Below the name: balanced accuracy, the mean of the diagonal of a run, averaged over runs. Grey: no
test image is of the class.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from dpmedbench.figures import palette, style, wording

if TYPE_CHECKING:
    import pandas as pd

ORDER = 91
NEEDS = ("scores",)
TASK = "classification"

# Inches: a cell, the least of a map, between maps; names at the left, above and below; a letter.
CELL, SMALLEST, GAP = 0.24, 1.15, 0.15
SIDE, MARGIN, LETTER = 0.9, 0.6, 0.055


def draw(scores: pd.DataFrame) -> Figure:
    """A heat map for the constant predictor and for each setting."""
    settings = list(_settings(scores))
    if not settings:
        return style.empty(scores, "no answers: nothing was scored")
    names = scores.dropna(subset=["class"]).drop_duplicates("class").sort_values("class")
    names = names["class_name"].tolist()
    side = max(SMALLEST, CELL * len(names))
    across = min(len(settings), int((style.DOUBLE - SIDE) / (side + GAP)))
    down = -(-len(settings) // across)
    letters = int(side / LETTER)
    titles = [_title(title, rows, letters) for title, rows in settings]
    heading = 0.125 * max(title.count("\n") + 1 for title in titles)
    figure = Figure(
        figsize=(
            style.DOUBLE if across * (side + GAP) > style.SINGLE - SIDE else style.SINGLE,
            down * (side + heading + GAP) + MARGIN + 0.06 * max(map(len, names)),
        ),
        layout="constrained",
    )
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, title, (_, rows) in zip(grid, titles, settings, strict=False):
        shares = matrix(rows, len(names))
        axes.set_facecolor(style.VOID)
        sns.heatmap(
            shares,
            ax=axes,
            vmin=0,
            vmax=1,
            cmap="cividis",
            annot=True,
            fmt=".2f",
            annot_kws={"fontsize": 6},
            cbar=False,
            square=True,
            linewidths=0.4,
            linecolor="white",
            xticklabels=names,
            yticklabels=names,
        )
        axes.set(xlabel="", ylabel="")
        axes.set_title(title, fontsize=6.5, weight="normal")
        axes.tick_params(axis="both", length=0)
        axes.tick_params(axis="x", rotation=90)
        axes.tick_params(axis="y", rotation=0)
    for place, axes in enumerate(grid):
        if place >= len(settings):
            figure.delaxes(axes)
            continue
        if place % across == 0:
            axes.set_ylabel("truth")
        if place >= across * (down - 1):
            axes.set_xlabel("answer")
    images = scores[(scores["metric"] == "confusion") & (scores["predictor"] == "model")]
    total = int(images.groupby(style.SETTING)["value"].sum().max())
    runs = style.runs(scores)
    style.headline(
        figure,
        scores,
        "shares of the test images of a class (0 to 1)",
        f"{total} answers a setting" + (f" in up to {runs} runs" if runs > 1 else ", single runs"),
    )
    return figure


def matrix(rows: pd.DataFrame, count: int) -> np.ndarray:
    """Shares (C, C) of the `confusion` rows: of each class, how much was given each answer."""
    counts = np.zeros((count, count))
    confusion = rows[rows["metric"] == "confusion"]
    places = confusion["class"].astype(int), confusion["predicted"].astype(int)
    np.add.at(counts, places, confusion["value"])
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def _settings(scores: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the rows of the constant predictor, then of each setting."""
    constant = scores[scores["predictor"] == "constant"]
    if len(constant):
        yield "Constant predictor", constant
    answers = scores[scores["predictor"] == "model"]
    several = len(set(answers["model"])) > 1
    for model, of_model in answers.groupby("model", sort=False):
        for mechanism, privacy in palette.settings(of_model):
            name = wording.setting(mechanism, privacy, "\n")
            rows = (of_model["mechanism"] == mechanism) & (of_model["privacy"] == privacy)
            yield f"{wording.name(model)}\n{name}" if several else name, of_model[rows]


def _title(name: str, rows: pd.DataFrame, letters: int) -> str:
    balanced = rows.loc[rows["metric"] == "balanced_accuracy", "value"].mean()
    lines = [textwrap.fill(line, letters, break_on_hyphens=False) for line in name.split("\n")]
    return "\n".join([*lines, f"balanced {balanced:.2f}"])
