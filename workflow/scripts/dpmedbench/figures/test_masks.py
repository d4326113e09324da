"""Predicted masks on the test set

Two test scans of {dataset} (one where there are many mechanisms), their truth, and what the model
of each mechanism ({mechanisms}) predicts at each noise level ({noise}); models: {models}. The scans
are those with the most classes in the truth, of different patients where there are several. The
number in a prediction is its mean Dice on that scan over the classes without background. Grey,
hatched: not graded.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
from matplotlib.figure import Figure

from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import classes, palette, style, tiles, wording

if TYPE_CHECKING:
    import pandas as pd

ORDER = 100
NEEDS = ("masks", "scores")
TASK = "segmentation"
PUBLISHED = {"bookkeeping": "Masks of the test set"}

GAP, SIDE, LINE = 0.05, 0.95, 0.115  # inches: between tiles, row names, a line of text
LARGEST_TILE, TALLEST = 1.3, 10.0  # inches
MANY_ROWS = 10  # rows up to which two scans are shown
STRIP = 6  # predictions that fit beside scan and truth
SIDE_BY_SIDE = 5  # noise levels up to which the two scans stand side by side

Identity = dict[str, object]


class Tile(NamedTuple):
    """A picture of a block: its place, what it shows (None: the scan) and its heading."""

    row: int
    column: int
    shown: Path | str | None
    heading: str


class Scans(NamedTuple):
    """The chosen test scans: arrays (k, H, W) and lists of length k."""

    records: list[int]
    names: list[str]
    images: np.ndarray
    truths: np.ndarray
    classes: list[str]


def draw(masks: list[tuple[Identity, Path]], scores: pd.DataFrame) -> Figure:
    """Scan, truth and predictions of two scans, with the legend of the classes."""
    cells = _one_run(masks, list(palette.colours(scores)))
    if not cells:
        return style.empty(scores, "no predicted masks")
    block, row_names = _strip(cells) if len(cells) <= STRIP else _matrix(cells)
    scans = _choose(cells[0][1], 2 if len(row_names) <= MANY_ROWS else 1)
    side = SIDE if any(row_names) else 0.2
    levels = len({identity["privacy"] for identity, _ in cells} - {"none"})
    beside = len(cells) > STRIP and levels <= SIDE_BY_SIDE
    across, down = (len(scans.records), 1) if beside else (1, len(scans.records))
    rows, columns = len(row_names), 1 + max(tile.column for tile in block)
    shape = scans.images.shape[1] / scans.images.shape[2]
    width = ((style.DOUBLE - side - 0.1) / across - 0.12) / columns - GAP
    width = min(width, LARGEST_TILE, TALLEST / (rows * down * shape))
    height = width * shape
    # The fewest letters that surely fit a tile decide how its heading is broken into lines.
    letters = max(8, int(width / 0.05))
    headings = [_broken(tile.heading, letters) for tile in block]
    heads = [
        LINE
        * max(
            text.count("\n") + 1 if text else 0
            for tile, text in zip(block, headings, strict=True)
            if tile.row == row
        )
        + 0.05
        for row in range(rows)
    ]
    tops = np.cumsum([heads[row] + (row > 0) * (height + GAP) for row in range(rows)])
    block_height = tops[-1] + height + 0.24
    block_width = columns * (width + GAP) + 0.12
    legend = classes.entries(scans.classes, ungraded=bool((scans.truths == IGNORE).any()))
    foot = tiles.legend_height(legend, style.DOUBLE)
    total = 0.16 + down * block_height + foot
    figure = Figure(figsize=(style.DOUBLE, total))
    identity = cells[0][0]
    figure.text(
        0.01,
        1 - 0.06 / total,
        f"Dataset {identity['dataset']}; fold {identity['fold']}, seed {identity['seed']}.",
        va="top",
        fontsize=style.SMALL,
        color=style.MUTED,
    )
    predictions = {path: _predictions(path, scans.records) for _, path in cells}
    dice = {path: _dice(scores, identity, scans.records) for identity, path in cells}
    for place in range(len(scans.records)):
        left = side + (place * block_width if beside else 0)
        top = 0.36 + (0 if beside else place * block_height)
        name = textwrap.shorten(scans.names[place], 60)
        figure.text(
            left / style.DOUBLE,
            1 - (top - 0.02) / total,
            name,
            va="bottom",
            fontsize=style.SMALL,
            weight="bold",
        )
        for tile, heading in zip(block, headings, strict=True):
            shown = _shown(tile, place, scans, predictions)
            if shown is None:
                continue
            picture, mask = shown
            x, y = left + tile.column * (width + GAP), top + tops[tile.row]
            axes = tiles.place(figure, picture, x, y, width, height, mask)
            axes.set_title(heading, fontsize=6, weight="normal", pad=2, linespacing=1.1)
            if isinstance(tile.shown, Path) and np.isfinite(dice[tile.shown][place]):
                axes.text(
                    0.05,
                    0.07,
                    f"{dice[tile.shown][place]:.2f}",
                    transform=axes.transAxes,
                    fontsize=6,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )
        if place == 0 or not beside:
            for row, text in enumerate(row_names):
                figure.text(
                    0.06 / style.DOUBLE,
                    1 - (top + tops[row] + height / 2) / total,
                    _broken(text, 17),
                    va="center",
                    fontsize=6.5,
                )
    tiles.legend(figure, legend)
    return figure


def _one_run(
    masks: list[tuple[Identity, Path]], mechanisms: list[str]
) -> list[tuple[Identity, Path]]:
    """The cells of the fold and seed that most cells have (of equals, the lowest), by model,
    mechanism in the order of `mechanisms`, those that are not private first, and noise."""
    counts = Counter((identity["fold"], identity["seed"]) for identity, _ in masks)
    if not counts:
        return []
    run = min(counts, key=lambda run: (-counts[run], run))
    cells = [cell for cell in masks if (cell[0]["fold"], cell[0]["seed"]) == run]
    models = list(dict.fromkeys(identity["model"] for identity, _ in cells))
    levels = ["none", *wording.noises([identity["privacy"] for identity, _ in cells])]

    def place(cell: tuple[Identity, Path]) -> tuple:
        identity = cell[0]
        private = identity["privacy"] != "none"
        level = levels.index(identity["privacy"])
        mechanism = mechanisms.index(identity["mechanism"])
        return models.index(identity["model"]), private, mechanism, level

    return sorted(cells, key=place)


def _strip(cells: list[tuple[Identity, Path]]) -> tuple[list[Tile], list[str]]:
    """One row: scan, truth and every prediction under its full name."""
    several = len({identity["model"] for identity, _ in cells}) > 1
    block = [Tile(0, 0, None, "Scan"), Tile(0, 1, "truth", "Truth")]
    for column, (identity, path) in enumerate(cells, start=2):
        heading = wording.setting(identity["mechanism"], identity["privacy"], "\n")
        heading = f"{wording.name(identity['model'])}\n{heading}" if several else heading
        block.append(Tile(0, column, path, heading))
    return block, [""]


def _matrix(cells: list[tuple[Identity, Path]]) -> tuple[list[Tile], list[str]]:
    """Scan, truth and non-private above; then a row a model and mechanism, a column a noise."""
    several = len({identity["model"] for identity, _ in cells}) > 1
    levels = wording.noises([identity["privacy"] for identity, _ in cells])
    block = [Tile(0, 0, None, "Scan"), Tile(0, 1, "truth", "Truth")]
    names = [""]
    headed: set[int] = set()
    places: dict[tuple, int] = {}
    for identity, path in cells:
        mechanism, model = wording.name(identity["mechanism"]), wording.name(identity["model"])
        if identity["privacy"] == "none":
            column = 1 + max(tile.column for tile in block if tile.row == 0)
            heading = f"{model}\n{mechanism}" if several else mechanism
            block.append(Tile(0, column, path, heading))
            continue
        row = places.setdefault((model, mechanism), len(places) + 1)
        if row == len(names):
            names.append(f"{model}\n{mechanism}" if several else mechanism)
        column = levels.index(identity["privacy"])
        heading = "" if column in headed else wording.noise_name(identity["privacy"])
        headed.add(column)
        block.append(Tile(row, column, path, heading))
    return block, names


def _choose(path: Path, count: int) -> Scans:
    with h5py.File(path) as file:
        truths = file["truth"][:]
        patients = file["patient"].asstr()[:]
        chosen = sorted(tiles.telling(truths, patients, count))
        return Scans(
            records=[int(record) for record in file["records"][:][chosen]],
            names=list(file["source"].asstr()[:][chosen]),
            images=file["images"][chosen],
            truths=truths[chosen],
            classes=list(json.loads(file.attrs["classes"])),
        )


def _predictions(path: Path, records: list[int]) -> list[np.ndarray | None]:
    """The predicted mask of each record, None where the cell has not predicted it."""
    with h5py.File(path) as file:
        rows = {int(record): row for row, record in enumerate(file["records"][:])}
        return [file["prediction"][rows[r]] if r in rows else None for r in records]


def _dice(scores: pd.DataFrame, identity: Identity, records: list[int]) -> list[float]:
    """Mean Dice of each record over the classes without background, NaN where not scored."""
    rows = (scores["predictor"] == "model") & (scores["class"] > 0)
    for key in (*style.SETTING, "fold", "seed"):
        rows &= scores[key] == identity[key]
    means = scores[rows].groupby("record")["dice"].mean()
    return [float(means.get(record, np.nan)) for record in records]


def _shown(
    tile: Tile, place: int, scans: Scans, predictions: dict[Path, list[np.ndarray | None]]
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The picture of a tile and its mask where it shows one; None where there is none to show."""
    if tile.shown is None:
        return scans.images[place], None
    truth = scans.truths[place]
    mask = truth if tile.shown == "truth" else predictions[tile.shown][place]
    if mask is None:
        return None
    graded = np.where(truth == IGNORE, IGNORE, mask)
    return classes.paint(graded, len(scans.classes)), graded


def _broken(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))
