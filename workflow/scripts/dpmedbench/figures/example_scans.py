"""Example scans and their masks

Two scans of {dataset} as they are trained on ({image_size} pixels), each beside itself with the
grader's classes laid over it. Grey pixels were not graded: they count neither in the loss nor in
the scores. Of a middle scan of each patient, the two with the most classes are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from dpmedbench.figures import style, tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CATEGORY = "Data"
ORDER = 10
NEEDS = ("store",)

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
        title, classes = data.title, data.classes
        chosen = tiles.telling(targets, patients[candidates])
    rows, columns = images.shape[1:3]
    width = (style.DOUBLE - 5 * GAP) / 4
    height = width * rows / columns
    foot = tiles.class_legend_height(classes, style.DOUBLE)
    figure = Figure(figsize=(style.DOUBLE, TITLE + height + 0.06 + foot))
    for place, index in enumerate(chosen):
        left = GAP + place * 2 * (width + GAP)
        scan = tiles.place(figure, images[index], left, TITLE, width, height)
        masked = tiles.overlay(images[index], targets[index], len(classes))
        tiles.place(figure, masked, left + width + GAP, TITLE, width, height).set_title(
            "with its classes", weight="normal", fontsize=style.SMALL, loc="left", pad=3
        )
        _name(scan, f"{title}\n{sources[index]}")
    tiles.class_legend(figure, classes, ignored=bool((targets[chosen] == tiles.IGNORE).any()))
    return figure


def _name(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=style.SMALL, weight="normal", loc="left", pad=3)
