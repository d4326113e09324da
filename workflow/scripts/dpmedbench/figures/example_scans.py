"""Example scans and their masks

Two scans of {dataset} as they are trained on ({image_size} pixels), each beside itself with the
grader's classes laid over it. Grey, hatched pixels were not graded: they count neither in the loss
nor in the scores. Of a middle scan of each patient, the two with the most classes are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import classes, style, tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDER = 10
NEEDS = ("store",)
TASK = "segmentation"
PUBLISHED = {"bookkeeping": "Figures 2 and 3"}

PATIENTS = 40  # enough to choose from without reading a large dataset
GAP, TITLE = 0.08, 0.36  # inches


def draw(store: Path) -> Figure:
    """Scan and overlay, twice, with the legend of the classes."""
    from dpmedbench.store import open_store

    with open_store(store) as data:
        patients = np.asarray(data.patients)
        middles = [np.flatnonzero(patients == name) for name in dict.fromkeys(patients)]
        candidates = np.sort([rows[len(rows) // 2] for rows in middles[:PATIENTS]])
        if len(candidates) < 2:
            candidates = np.arange(min(data.num_records, PATIENTS))
        images, targets = data.read(candidates)
        sources = np.asarray(data.sources)[candidates]
        title, names = data.title, data.classes
        chosen = tiles.telling(targets, patients[candidates])
    rows, columns = images.shape[1:3]
    width = (style.DOUBLE - 5 * GAP) / 4
    height = width * rows / columns
    legend = classes.entries(names, ungraded=bool((targets[chosen] == IGNORE).any()))
    foot = tiles.legend_height(legend, style.DOUBLE)
    figure = Figure(figsize=(style.DOUBLE, TITLE + height + 0.06 + foot))
    for place, index in enumerate(chosen):
        left = GAP + place * 2 * (width + GAP)
        scan = tiles.place(figure, images[index], left, TITLE, width, height)
        masked = classes.overlay(images[index], targets[index], len(names))
        left += width + GAP
        truth = tiles.place(figure, masked, left, TITLE, width, height, targets[index])
        _name(scan, f"{title}\n{sources[index]}")
        _name(truth, "with its classes")
    tiles.legend(figure, legend)
    return figure


def numbers(store: Path) -> str:
    """How many scans there are, of how many patients."""
    from dpmedbench.store import open_store

    with open_store(store) as data:
        patients = len(set(data.patients))
        return f"{data.title}: {data.num_records} scans of {patients} patients."


def _name(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=style.SMALL, weight="normal", loc="left", pad=3)
