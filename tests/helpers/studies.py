"""Made-up studies, each written once and each figure of it drawn once; what can be asked of one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from made_up import grid, write
from made_up_networks import write_network
from made_up_scans import write_store

from dpmedbench import claims, comparisons, figures, results, summary, support, tables

SIZE = (48, 48)
REAL = {"duke": "duke", "umn": "umn"}
DERIVED = {"summary": summary, "comparisons": comparisons, "claims": claims}
SIGMAS = (0.3, 0.5, 0.7, 1.0)
EVERY = sorted(
    name
    for name, info in figures.catalog().items()
    if info.task != "classification" and "perturbed" not in info.needs
)
# Drawn from the rows of one dataset, of which there may be none.
OF_ROWS = sorted(
    name
    for name, info in figures.catalog().items()
    if info.scope == "dataset" and set(info.needs) & set(figures.TABLES)
)
OVER_EPOCHS = {
    "time_per_epoch": "seconds",
    "training_loss": "train_loss",
    "validation_loss": "val_loss",
    "epsilon_over_epochs": "epsilon",
}
# Laid out by the same code as validation_accuracy, which has more in its legend.
ALIKE = {"time_per_epoch", "training_loss", "validation_loss"}
STUDIES = {
    "one_cell": (grid(mechanisms=("opacus_flat",)), 1),
    "non_private_alone": (grid(mechanisms=("non_private",)), 2),
    "three_cells": (grid(), 4),
    "no_non_private": (grid(mechanisms=("opacus_flat", "bookkeeping"), sigmas=SIGMAS), 14),
    "two_datasets": (
        grid(
            ("duke", "umn"),
            mechanisms=("non_private", "bookkeeping_automatic_mixopt"),
            sigmas=SIGMAS,
        ),
        14,
    ),
    "four_models": (
        grid(
            models=("unet", "nested_unet", "resnet18", "unet_wide"),
            mechanisms=("non_private", "opacus_flat", "random_sparsification"),
            sigmas=(0.3, 1.0),
            folds=3,
        ),
        3,
    ),
    "crowd": (
        grid(
            models=("unet", "nested_unet"),
            mechanisms=("non_private", "mechanism_a", "mechanism_b", "mechanism_c", "mechanism_d"),
            sigmas=(0.1, 0.3, 0.5, 0.7, 1, 2),
        ),
        2,
    ),
    "long_names": (
        grid(
            models=("unet", "nested_unet"),
            mechanisms=("non_private", *(f"bookkeeping_mixopt_with_a_long_name_{n}" for n in "ab")),
            sigmas=(0.3, 1.0),
        ),
        2,
    ),
    # Nested U-Net without what is not private; the first row of masks lacks the least noise
    "unequal": (
        grid(sigmas=(0.3, 0.5, 1.0), mechanisms=("non_private", "opacus_flat"))
        + grid(sigmas=(0.5, 1.0), mechanisms=("bookkeeping",))
        + grid(models=("nested_unet",), sigmas=(0.5, 1.0), mechanisms=("bookkeeping",)),
        2,
    ),
    "many_settings": (
        grid(
            models=("unet", "nested_unet"),
            mechanisms=("non_private", "mechanism_a"),
            sigmas=(0.1, 0.3, 0.5, 0.7, 1, 1.5, 2, 4, 6, 8),
        )
        + grid(
            models=("unet", "nested_unet"),
            mechanisms=("mechanism_b", "mechanism_c", "mechanism_d"),
            sigmas=(0.1,),
        ),
        2,
    ),
}


class Study:
    """Made-up cells, their tables and stores on disk."""

    def __init__(self, name: str) -> None:
        self.cells, epochs = STUDIES[name]
        self._folder = tempfile.TemporaryDirectory(prefix=name)
        self.root = root = Path(self._folder.name)
        folders = write(root / "cells", self.cells, epochs, images=3, size=SIZE)
        self.tables = write_tables(folders, root)
        self.masks = [folder / "masks.h5" for folder in folders]
        self.datasets = sorted({cell.dataset for cell in self.cells})
        for dataset in self.datasets:
            write_store(root / f"{dataset}.h5", dataset, 6, SIZE)

    def inputs(self, dataset: str = "duke") -> dict[str, object]:
        """What any figure needs, for a test to change."""
        frames = {kind: figures.load(path, dataset) for kind, path in self.tables.items()}
        masks = figures._masks_of(dataset, self.masks)
        return {**frames, **self.files(dataset), "masks": masks}

    def files(self, dataset: str = "duke") -> dict[str, object]:
        """What any figure needs beside the tables."""
        models = dict.fromkeys(cell.model for cell in self.cells if cell.dataset == dataset)
        folder = self.root / "networks" / dataset
        return {
            "store": self.root / f"{dataset}.h5",
            "masks": self.masks,
            "networks": [write_network(folder / f"{m}.json", m) for m in models],
            "benchmark": [],
            "support": support.rows(),
            "left_out": {"no such engine": ["duke/unet/fastdp/sigma1/fold0/seed0"]},
            "missing": {},
            "real": REAL,
        }

    def render(self, name: str, *outputs: Path) -> None:
        figures.render(name, "duke", self.tables | self.files(), outputs)


def write_tables(folders: list[Path], root: Path) -> dict[str, Path]:
    """Every table of the cells in `folders`, collected and derived: {kind: path}."""
    sources = dict.fromkeys(tables.KINDS, folders)
    if predicted := [folder for folder in folders if (folder / "predictions.parquet").exists()]:
        sources["predictions"] = predicted
    paths = {kind: root / f"{kind}.parquet" for kind in (*sources, *DERIVED)}
    for kind, cells in sources.items():
        tables.collect(kind, cells, paths[kind])
    found = results.read({kind: paths[kind] for kind in sources}, REAL)
    for kind, module in DERIVED.items():
        tables.write(module.table(found), paths[kind])
    return paths


@functools.cache
def study(name: str) -> Study:
    """A study, written once."""
    return Study(name)


def inputs(name: str, dataset: str = "duke") -> dict[str, object]:
    """What any figure of a study needs, for a test to change."""
    return study(name).inputs(dataset)


@functools.cache
def drawn(name: str, figure: str, dataset: str = "duke"):
    """A figure of a study, drawn once: for a test to look at."""
    return figures.draw(figure, **_inputs(name, dataset))


_inputs = functools.cache(inputs)  # which nobody changes


def texts(figure):
    """(text, box in pixels) of every text that is seen."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    figure.draw_without_rendering()
    ticks = {
        label
        for axis in figure.findobj(Axis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    seen = {
        label
        for axis in figure.findobj(Axis)
        if axis.axes.get_visible() and axis.axes.axison
        for tick in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    return [
        (text, text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and (text not in ticks or text in seen)
    ]


def said(figure):
    """All that is written on a figure, in one line."""
    return " ".join(text.get_text().replace("\n", " ") for text, _ in texts(figure))


def overlaps(figure):
    """Pairs of texts that cover each other, and texts that leave the figure."""
    found = texts(figure)
    names = [text.get_text() for text, _ in found]
    low, high = np.array([box.padded(-0.6).get_points() for _, box in found]).swapaxes(0, 1)
    covered = ((low[:, None] <= high) & (low <= high[:, None])).all(-1)
    pairs = [(names[a], names[b]) for a, b in np.argwhere(np.triu(covered, 1))]
    page = figure.bbox.padded(1.5)
    outside = ((low < page.min) | (high > page.max)).any(-1)
    return pairs + [names[a] for a in np.flatnonzero(outside)]


def lines(axes):
    """{mechanism/privacy: line} of a panel."""
    return {line.get_label(): line for line in axes.get_lines() if "/" in str(line.get_label())}
