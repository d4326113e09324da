"""Test Dice by class

Mean Dice of each class over the test images of {dataset} in which it can be scored, then over
folds and seeds. Rows: the constant predictor (every pixel the commonest class), then every
mechanism ({mechanisms}) at each noise level ({noise}). Last column: mean over the classes without
background. Grey: no test image defines the score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from dpmedbench.figures import style, wording

if TYPE_CHECKING:
    import pandas as pd

CATEGORY = "Utility"
ORDER = 90
NEEDS = ("scores",)
TASK = "segmentation"

MEAN = "mean without\nbackground"
ROW, COLUMN, LEAST = 0.17, 0.36, 0.7  # inches
FEW_ROWS = 40  # rows up to which the numbers are written into the map
CONSTANT = "Constant predictor"


def draw(scores: pd.DataFrame) -> Figure:
    """A heat map a model: settings x classes."""
    models = list(scores["model"].unique())
    if not models:
        figure, (axes,) = style.panels([" "], [])
        style.explain(axes, f"no rows of dataset {style.dataset(scores)} in the table")
        axes.set_yticks([])
        return figure
    tables = [matrix(scores[scores["model"] == model]) for model in models]
    rows = _row_order(scores)
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
    for axes, model, table in zip(grid, models, tables, strict=False):
        table = table.reindex(rows)
        axes.set_facecolor(style.VOID)
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
        axes.tick_params(axis="y", rotation=0, labelsize=min(style.SMALL, 62 * height / len(rows)))
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
    images = scores.groupby(["fold"])["record"].nunique()
    style.headline(
        figure,
        scores,
        f"{images.min()} test images" + (" a fold" if len(images) > 1 else ""),
        "single runs" if style.runs(scores) == 1 else f"means of up to {style.runs(scores)} runs",
    )
    return figure


def matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of one model: settings x (classes, mean of the classes but the first)."""
    scores = scores[scores["predictor"].isin(("model", "constant"))]
    row = _settings(scores).where(scores["predictor"] == "model", CONSTANT)
    setting = ["row", "mechanism", "privacy", "fold", "seed", "class"]
    runs = scores.assign(row=row).groupby(setting)["dice"].mean()
    table = runs.reset_index().pivot_table(index="row", columns="class", values="dice")
    names = scores.drop_duplicates("class").set_index("class")["class_name"]
    table = table.reindex(columns=sorted(names.index))
    table.columns = [names[number] for number in table.columns]
    foreground = table.iloc[:, 1:] if table.shape[1] > 1 else table
    table[MEAN] = foreground.mean(axis=1)
    return table


def _settings(scores: pd.DataFrame) -> pd.Series:
    names = scores["mechanism"].map({m: wording.name(m) for m in scores["mechanism"].unique()})
    noise = scores["privacy"].map(
        {p: "" if p == "none" else f", {wording.noise_name(p)}" for p in scores["privacy"].unique()}
    )
    return names.astype(str) + noise.astype(str)


def _row_order(scores: pd.DataFrame) -> list[str]:
    order = list(style.colours(scores))
    levels = ["none", *wording.noises(scores["privacy"])]
    pairs = scores[["mechanism", "privacy"]].drop_duplicates()
    pairs = pairs.assign(row=_settings(pairs))
    ranked = sorted(
        pairs.itertuples(), key=lambda p: (order.index(p.mechanism), levels.index(p.privacy))
    )
    constant = [CONSTANT] if (scores["predictor"] == "constant").any() else []
    return constant + [pair.row for pair in ranked]


def _two_digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
