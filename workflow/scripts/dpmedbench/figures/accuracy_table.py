"""Accuracy by mechanism and dataset

Accuracy in per cent of images on {dataset}, in the shape of the published table: the best epoch on
the training set as drawn, the best epoch on the test set, and, which is not published, the test set
after the last epoch. The best epoch on the test set is chosen by it, as in the published study: it
is no estimate of what to expect; the last row is. First column: the constant predictor, the
commonest class of the training set for every image; what is not above it has learned nothing.
Below a number its 95 % interval over runs, not over patients, where there are several runs: how far
other trainings may lie, tested on these images; the accuracy among the results of every setting,
in which a patient counts once, has one over patients and runs. In italics what the study published,
after 50 epochs: under "LDP" for noise on the images, under "DP-SGD" for noise on the gradients.
Mechanisms: {mechanisms}; noise: {noise}.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from dpmedbench import published
from dpmedbench.figures import palette, style, utility, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 62
NEEDS = ("summary", "real")
SCOPE = "study"
TASK = "classification"
PUBLISHED = {"local_dp": "Figure 4"}

ROWS = {
    "train_accuracy_best": "training,\nbest epoch",
    "test_accuracy_best": "test,\nbest epoch",
    "test_accuracy_last": "test,\nlast epoch",
}
PRINTED = "#9a3d00"
SIDE, MOST, LINE, HEAD = 1.25, 14, 0.13, 0.52  # inches; most columns of a block
WIDEST = 0.95
ROW, TINY = 3.3 * LINE, 5
Setting = tuple[str, str]


def draw(summary: pd.DataFrame, real: Mapping[str, str]) -> Figure:
    """Blocks of columns, a column a mechanism and noise level, rows a dataset and part."""
    found = _rows(summary, real)
    if found.empty:
        return style.empty(summary, "no accuracies: nothing was classified")
    settings = [(utility.CONSTANT, "none"), *palette.settings(found)]
    blocks = [settings[start : start + MOST] for start in range(0, len(settings), MOST)]
    sets = list(found[["dataset", "model"]].drop_duplicates().itertuples(index=False, name=None))
    height = HEAD + ROW * len(ROWS) * len(sets)
    width = min((style.DOUBLE - SIDE - 0.05) / min(len(settings), MOST), WIDEST)
    figure = Figure(figsize=(style.DOUBLE, 0.3 + height * len(blocks)))
    for number, block in enumerate(blocks):
        top = 0.3 + number * height
        total = figure.get_figheight()
        axes = figure.add_axes((0, 1 - (top + height) / total, 1, height / total))
        axes.set(xlim=(0, style.DOUBLE), ylim=(height, 0))
        axes.axis("off")
        _block(axes, found, sets, block, width)
    several = found["low"].notna().any()
    style.headline(
        figure,
        found,
        "accuracy in %",
        "95 % intervals over runs, not patients" if several else "single runs, no intervals",
        "in italics: as published" if found["printed"].notna().any() else "",
    )
    return figure


def numbers(summary: pd.DataFrame, real: Mapping[str, str]) -> str:
    """The range of the differences to the published numbers."""
    found = _rows(summary, real)
    gaps = 100 * (found["value"] - found["printed"]).dropna()
    if gaps.empty:
        return ""
    return (
        f"{len(gaps)} numbers have a published one beside them; ours are {gaps.min():+.1f} to "
        f"{gaps.max():+.1f} points from it, the median {gaps.median():+.1f}."
    )


def _rows(summary: pd.DataFrame, real: Mapping[str, str]) -> pd.DataFrame:
    """The rows that are shown, with the number `printed` of each, NaN where there is none."""
    found = summary[summary["metric"].isin(ROWS)]
    datasets = found.loc[found["metric"] == "test_accuracy_last", "dataset"]
    found = found[found["dataset"].isin(datasets)]
    found = found.assign(
        printed=[
            _printed(real.get(row.dataset), row.metric, row.mechanism, row.engine, row.privacy)
            for row in found.itertuples()
        ]
    )
    found.attrs = summary.attrs | {"dataset": ", ".join(found["dataset"].unique())}
    return found


def _block(
    axes: Axes,
    found: pd.DataFrame,
    sets: list[tuple[str, str]],
    settings: list[Setting],
    width: float,
) -> None:
    middles = {setting: SIDE + (place + 0.5) * width for place, setting in enumerate(settings)}
    right = SIDE + len(settings) * width
    _heads(axes, settings, width)
    values = found.set_index(["dataset", "model", "metric", "mechanism", "privacy"])
    several = len(set(found["model"])) > 1
    for number, (dataset, model) in enumerate(sets):
        top = HEAD + number * ROW * len(ROWS)
        axes.plot([0, right], [top, top], color="black", linewidth=0.6)
        name = dataset.replace("_", " ")
        name = f"{name}\n{wording.name(model)}" if several else name
        axes.text(0.05, top + 0.06, _wrapped(name, 0.58), va="top", weight="bold", fontsize=6.5)
        for place, (metric, part) in enumerate(ROWS.items()):
            y = top + place * ROW
            axes.text(SIDE - 0.05, y + 0.06, part, va="top", ha="right", fontsize=5.5)
            for setting, x in middles.items():
                key = (dataset, model, metric, *setting)
                if key in values.index:
                    _number(axes, x, y, values.loc[key])
    foot = HEAD + ROW * len(ROWS) * len(sets) - 0.01
    axes.plot([0, right], [foot, foot], color="black", linewidth=0.6)


def _heads(axes: Axes, settings: list[Setting], width: float) -> None:
    """Names of mechanisms over the columns of their noise levels."""
    start = 0
    for mechanism, group in groupby(settings, key=lambda setting: setting[0]):
        labels = [privacy for _, privacy in group]
        left, right = SIDE + start * width, SIDE + (start + len(labels)) * width
        name = _wrapped(wording.name(mechanism), right - left)
        axes.text(
            (left + right) / 2, HEAD - 0.19, name, ha="center", va="bottom", weight="bold",
            fontsize=6,
        )  # fmt: skip
        axes.plot([left + 0.03, right - 0.03], [HEAD - 0.165] * 2, color="black", linewidth=0.4)
        for place, label in enumerate(labels):
            text = "" if label == "none" else wording.noise_name(label)
            x = left + (place + 0.5) * width
            axes.text(x, HEAD - 0.03, text, ha="center", va="bottom", fontsize=6)
        start += len(labels)


def _number(axes: Axes, x: float, y: float, row: pd.Series) -> None:
    def write(line: int, text: str, **look: object) -> None:
        axes.text(x, y + 0.06 + LINE * (line + 0.6), text, ha="center", **look)

    write(0, f"{100 * row['value']:.1f}", fontsize=style.SMALL)
    if np.isfinite(row["low"]):
        write(1, f"{100 * row['low']:.1f}–{100 * row['high']:.1f}", fontsize=TINY)
    if np.isfinite(row["printed"]):
        write(2, f"{100 * row['printed']:.2f}", fontsize=TINY + 0.5, color=PRINTED, style="italic")


def _printed(loader: str | None, metric: str, mechanism: str, engine: str, privacy: str) -> float:
    """The published number of a loader's data, metric and noise level, by how the noise is put on;
    NaN where there is none."""
    if mechanism == utility.CONSTANT:
        return np.nan
    name = {"none": "original", "local": "LDP"}.get(engine, "DP-SGD")
    return _published().get((loader, metric, name, privacy), np.nan)


@functools.cache
def _published() -> dict[tuple[str, ...], float]:
    table = published.table("local_dp")
    keys = table[["dataset", "metric", "mechanism", "privacy"]].itertuples(index=False, name=None)
    return dict(zip(keys, table["value"], strict=True))


def _wrapped(text: str, inches: float) -> str:
    letters = max(int(inches / 0.052), 4)
    lines = [textwrap.fill(line, letters, break_long_words=False) for line in text.split("\n")]
    return "\n".join(lines)
