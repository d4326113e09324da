"""Example images of each class

Images of {dataset} as they are trained on ({image_size} pixels), a column a class in the order of
its number, for grades that of severity. Of each class the first image of a patient in the middle of
the list and of one a quarter down it: chosen by their place, not by what they show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dpmedbench.figures import style, tiles
from dpmedbench.store import open_store

ORDER = 14
NEEDS = ("store",)
TASK = "classification"
PUBLISHED = {"local_dp": "Figure 1"}

GAP, TITLE, WIDEST = 0.06, 0.36, 1.6  # inches


def draw(store: Path) -> Figure:
    """Two images a class, with how many there are."""
    with open_store(store) as data:
        labels, patients = np.asarray(data.targets), np.asarray(data.patients)
        chosen = [_chosen(np.flatnonzero(labels == c), patients) for c in range(len(data.classes))]
        rows = sorted({row for pair in chosen for row in pair})
        images = dict(zip(rows, data.read(rows)[0], strict=True)) if rows else {}
        names, shape = data.classes, data.image_size
    width = min((style.DOUBLE - GAP) / len(names) - GAP, WIDEST)
    height = width * shape[0] / shape[1]
    size = (max(len(names) * (width + GAP) + GAP, style.SINGLE), TITLE + 2 * (height + GAP))
    figure = Figure(figsize=size)
    for column, (name, pair) in enumerate(zip(names, chosen, strict=True)):
        left = GAP + column * (width + GAP)
        count = int((labels == column).sum())
        figure.text(
            left / size[0], 1 - 0.06 / size[1], f"{name}\n{count:,} images", va="top",
            fontsize=min(style.SMALL, 110 * width / max(len(name), 16)), linespacing=1.3,
        )  # fmt: skip
        for row, record in enumerate(pair):
            tiles.place(figure, images[record], left, TITLE + row * (height + GAP), width, height)
    return figure


def numbers(store: Path) -> str:
    """How many images each class has, of how many patients."""
    with open_store(store) as data:
        counts = np.bincount(np.asarray(data.targets), minlength=len(data.classes))
        each = ", ".join(f"{name} {n:,}" for name, n in zip(data.classes, counts, strict=True))
        patients = len(set(data.patients))
    return f"{counts.sum():,} images of {patients:,} patients: {each}."


def _chosen(records: np.ndarray, patients: np.ndarray) -> list[int]:
    """Up to two records: the first of the patient in the middle, and of one a quarter down."""
    names = list(dict.fromkeys(patients[records]))
    places = dict.fromkeys((len(names) // 2, len(names) // 4)) if names else ()
    return [int(records[patients[records] == names[place]][0]) for place in places]
