"""A picture of test scans: image, truth, prediction, and where the two disagree."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.datasets.base import IGNORE
from dpmedbench.metrics import image_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Paul Tol's, and Okabe and Ito's, schemes, chosen so that any two of the first eight,
# the background and the grey differ by at least 18 in CIELAB also for a colour-blind reader
# (Machado et al. 2009), and ordered so that neighbours differ in lightness.
BACKGROUND = "#222222"
CLASSES = (
    "#66ccee",
    "#aa3377",
    "#ddcc77",
    "#332288",
    "#e69f00",
    "#0077bb",
    "#ee6677",
    "#cc3311",
    "#009988",
)
UNGRADED, HATCH = "#dddddd", "#888888"
# Okabe and Ito's scheme.
MISSED, ADDED, CONFUSED = "#0072b2", "#e69f00", "#cc79a7"
PANEL_INCHES = 2.1


def draw(masks: str | Path, count: int = 4) -> Figure:
    """Draw up to `count` test scans of a `masks.h5`, spread over its patients.

    A row is a scan, with its mean Dice without background (absent classes left out); the columns
    are image, truth, prediction and disagreement. Pixels that were not graded are grey and
    hatched, except in the prediction.
    """
    import h5py
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with h5py.File(masks) as file:
        classes = json.loads(file.attrs["classes"])
        rows = spread(file["patient"].asstr()[:], count)
        sources = file["source"].asstr()[:]
        scans = [[file[name][r] for name in ("images", "truth", "prediction")] for r in rows]

    colours = palette(len(classes))
    height, width = scans[0][1].shape
    panel = PANEL_INCHES * np.clip(height / width, 0.4, 2.0)
    legend_inches = 0.55 + 0.19 * (len(classes) + 6)
    size = (4 * PANEL_INCHES + 2.5, max(len(rows) * panel + 0.5, legend_inches))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, row, (image, truth, prediction) in zip(axes, rows, scans, strict=True):
        dice = image_scores(prediction, truth, len(classes))["dice"][1:]
        score = f"{np.nanmean(dice):.2f}" if np.isfinite(dice).any() else "undefined"
        label = "\n".join([*sources[row].split("/"), f"Dice {score}"])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        line[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        line[1].imshow(colours[truth])
        line[2].imshow(colours[prediction])
        line[3].imshow(disagreement(image, truth, prediction))
        for axis in (line[1], line[3]):
            _hatch(axis, truth == IGNORE)
    for axis, title in zip(axes[0], ("Image", "Truth", "Prediction", "Disagreement"), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)

    hatched = {"facecolor": UNGRADED, "edgecolor": HATCH, "hatch": "////", "linewidth": 0}
    of_classes = [Patch(color=colours[label], label=name) for label, name in enumerate(classes)]
    of_errors = [
        Patch(color=MISSED, label="missed"),
        Patch(color=ADDED, label="added"),
        Patch(color=CONFUSED, label="another class"),
    ]
    style = {"frameon": False, "fontsize": 8, "title_fontsize": 9, "alignment": "left"}
    figure.legend(
        handles=[*of_classes, Patch(**hatched, label="not graded")],
        title="Class",
        loc="outside right upper",
        **style,
    )
    figure.legend(
        handles=of_errors[: 2 + (len(classes) > 2)],
        title="Disagreement",
        loc="outside right lower",
        **style,
    )
    return figure


def spread(patients: np.ndarray, count: int) -> list[int]:
    """Up to `count` row numbers, sorted, as even over `patients` as can be, middle scans first."""
    by_patient = [np.flatnonzero(patients == name) for name in dict.fromkeys(patients)]
    middle_first = [
        rows[np.argsort(abs(np.arange(len(rows)) - len(rows) // 2), kind="stable")]
        for rows in by_patient
    ]
    rounds = (row for turn in zip_longest(*middle_first) for row in turn if row is not None)
    return sorted(int(row) for row, _ in zip(rounds, range(count), strict=False))


def palette(num_classes: int) -> np.ndarray:
    """RGB in [0, 1] of each label: (256, 3); the classes, and grey for what is not graded."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgb

    colours = np.full((256, 3), to_rgb(UNGRADED))
    colours[0] = to_rgb(BACKGROUND)
    if num_classes - 1 <= len(CLASSES):
        colours[1:num_classes] = [to_rgb(colour) for colour in CLASSES[: num_classes - 1]]
    else:
        colours[1:num_classes] = mpl.colormaps["turbo"](np.linspace(0, 1, num_classes - 1))[:, :3]
    return colours


def disagreement(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) in [0, 1]: the image, pale, with each wrong graded pixel in its colour.

    Missed: a class taken for background; added: background taken for a class; confused: one
    class taken for another.
    """
    from matplotlib.colors import to_rgb

    gray = image if image.ndim == 2 else image.mean(-1)
    shown = np.repeat((0.5 + 0.5 * gray / 255)[..., None], 3, axis=-1)
    wrong = (truth != prediction) & (truth != IGNORE)
    shown[wrong] = to_rgb(CONFUSED)
    shown[wrong & (prediction == 0)] = to_rgb(MISSED)
    shown[wrong & (truth == 0)] = to_rgb(ADDED)
    shown[truth == IGNORE] = to_rgb(UNGRADED)
    return shown


def _hatch(axis: Axes, where: np.ndarray) -> None:
    if where.any():
        # A rim outside the image, so that the hatching reaches its border.
        wide = np.pad(where, 1, mode="edge").astype(float)
        sides = [np.arange(-1, length + 1) for length in where.shape]
        limits = axis.axis()
        drawn = axis.contourf(
            sides[1], sides[0], wide, levels=[0.5, 1.5], colors="none", hatches=["////"]
        )
        drawn.set(edgecolor=HATCH, linewidth=0)
        axis.axis(limits)
