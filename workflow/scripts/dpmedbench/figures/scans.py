"""The picture of one cell: test scans, their truth, the prediction, where the two disagree."""

from __future__ import annotations

import json
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import classes, style, tiles
from dpmedbench.segmentation_metrics import overlap

COLUMNS = ("Scan", "Truth", "Prediction", "Disagreement")
SIDE, HEAD, GAP, LINE, TITLE, TALLEST = 1.05, 0.24, 0.06, 0.125, 0.95, 2.6  # inches
# Of the scheme of Okabe and Ito, and one of Paul Tol: distinct on every grey.
MISSED, ADDED, CONFUSED = "#0072b2", "#e69f00", "#882255"


class Scan(NamedTuple):
    """A test scan: its name, and image, truth and prediction (H, W)."""

    source: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@style.theme()
def picture(masks: Path, count: int = 4) -> Figure:
    """Draw up to `count` test scans of a `masks.h5`, spread over its patients.

    A row is a scan, with its mean Dice over the classes without background (those absent left
    out). Pixels that were not graded are grey and hatched, except in the prediction.
    """
    scans, names = _read(masks, count)
    rows, columns = scans[0].truth.shape
    width = (style.DOUBLE - SIDE - 0.1) / len(COLUMNS) - GAP
    width = min(width, TALLEST * columns / rows)
    step = max(width, TITLE) + GAP
    height = width * rows / columns
    labels = [_label(scan, len(names)) for scan in scans]
    pitch = max(height, LINE * max(label.count("\n") + 1 for label in labels)) + GAP
    ungraded = any((scan.truth == IGNORE).any() for scan in scans)
    legend = classes.entries(names, ungraded=ungraded)
    errors = [
        classes.entry("none", "Disagreement:"),
        classes.entry(MISSED, "missed"),
        classes.entry(ADDED, "added"),
        classes.entry(CONFUSED, "another class"),
    ][: 3 + (len(names) > 2)]
    errors[0].set_linewidth(0)
    foot = tiles.ROW + 0.04
    total = HEAD + len(scans) * pitch + tiles.legend_height(legend, style.DOUBLE) + foot
    figure = Figure(figsize=(style.DOUBLE, total))
    for row, (scan, label) in enumerate(zip(scans, labels, strict=True)):
        top = HEAD + row * pitch
        figure.text(
            (SIDE - 0.08) / style.DOUBLE,
            1 - (top + (pitch - GAP) / 2) / total,
            label,
            ha="right",
            va="center",
            fontsize=style.SMALL,
        )
        shown = (
            (scan.image, None),
            (classes.paint(scan.truth, len(names)), scan.truth),
            (classes.paint(scan.prediction, len(names)), None),
            (disagreement(scan.image, scan.truth, scan.prediction), scan.truth),
        )
        for column, (drawn, mask) in enumerate(shown):
            left = SIDE + column * step
            axes = tiles.place(figure, drawn, left, top, width, height, mask)
            if row == 0:
                axes.set_title(COLUMNS[column], pad=3)
    tiles.legend(figure, legend, above=foot)
    tiles.legend(figure, errors)
    return figure


def disagreement(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) in [0, 1]: the image, pale, with each wrong graded pixel in its colour.

    Missed: a class taken for background; added: background taken for a class; another class: one
    class taken for another.
    """
    gray = image if image.ndim == 2 else image.mean(-1)
    shown = np.repeat((0.5 + 0.5 * gray / 255)[..., None], 3, axis=-1)
    wrong = (truth != prediction) & (truth != IGNORE)
    shown[wrong] = to_rgb(CONFUSED)
    shown[wrong & (prediction == 0)] = to_rgb(MISSED)
    shown[wrong & (truth == 0)] = to_rgb(ADDED)
    shown[truth == IGNORE] = to_rgb(style.VOID)
    return shown


def spread(patients: np.ndarray, count: int) -> list[int]:
    """Up to `count` row numbers, sorted, as even over `patients` as can be, middle scans first."""
    by_patient = [np.flatnonzero(patients == name) for name in dict.fromkeys(patients)]
    middle_first = [
        rows[np.argsort(abs(np.arange(len(rows)) - len(rows) // 2), kind="stable")]
        for rows in by_patient
    ]
    rounds = (row for turn in zip_longest(*middle_first) for row in turn if row is not None)
    return sorted(int(row) for row, _ in zip(rounds, range(count), strict=False))


def _read(masks: Path, count: int) -> tuple[list[Scan], list[str]]:
    """The scans to draw, and the names of the classes."""
    with h5py.File(masks) as file:
        scans = [
            Scan(
                file["source"].asstr()[row],
                *(file[kind][row] for kind in ("images", "truth", "prediction")),
            )
            for row in spread(file["patient"].asstr()[:], count)
        ]
        return scans, json.loads(file.attrs["classes"])


def _label(scan: Scan, count: int) -> str:
    """Where a scan comes from and its mean Dice, in lines that fit beside it."""
    graded = scan.truth != IGNORE
    pairs = scan.truth[graded].astype(int) * count + scan.prediction[graded]
    dice = overlap(np.bincount(pairs, minlength=count**2).reshape(count, count))[0][1:]
    score = f"Dice {np.nanmean(dice):.2f}" if np.isfinite(dice).any() else "Dice undefined"
    lines = [line for part in scan.source.split("/") for line in textwrap.wrap(part, 17)]
    return "\n".join([*lines, score])
