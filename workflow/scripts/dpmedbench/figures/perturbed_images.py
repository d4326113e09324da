"""Images before and after local perturbation

Two images of {dataset} ({image_size} pixels) as they are and with the noise of the local
mechanisms, the very images that are trained on. Noise for each pixel has epsilon 1/beta for one
pixel of one channel, and the sum over all of them for an image whose pixels are replaced at will;
labels are not protected. One number for a whole image protects nothing. Every picture is stretched
from its darkest to its brightest twentieth, as anybody who holds it may do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dpmedbench.figures import style, tiles
from dpmedbench.store import open_store

ORDER = 11
NEEDS = ("store", "perturbed")
PUBLISHED = {"local_dp": "Figure 2"}

GAP, NAME, TITLE, WIDEST = 0.06, 0.2, 0.32, 1.6  # inches
NAMES = {
    "va": "top",
    "fontsize": 4,
    "color": "white",
    "bbox": {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1},
}
MODES = {"laplace": "Noise for each pixel", "scalar_per_image": "One number for the whole image"}


def draw(store: Path, perturbed: Sequence[Path]) -> Figure:
    """A block a mode, a row an image, a column a beta after the image itself."""
    with open_store(store) as data:
        chosen = sorted({0, data.num_records - 1})
        before, sources = data.read(chosen)[0], data.sources[chosen]
    after = {}
    for path in perturbed:
        with open_store(path) as data:
            noise = data.provenance["perturbation"]
            after[noise["mode"], noise["beta"]] = data.read(chosen)[0]
    betas = sorted({beta for _, beta in after})
    modes = [mode for mode in MODES if any(mode == m for m, _ in after)]
    width = min((style.DOUBLE - GAP) / (1 + len(betas)) - GAP, WIDEST)
    height = width * before.shape[1] / before.shape[2]
    block = NAME + TITLE + len(chosen) * (height + GAP)
    size = (max((1 + len(betas)) * (width + GAP) + GAP, style.SINGLE), len(modes) * block + GAP)
    figure = Figure(figsize=size)
    for number, mode in enumerate(modes):
        top = number * block
        figure.text(GAP / size[0], 1 - (top + GAP) / size[1], MODES[mode], va="top", weight="bold")
        columns = [("as it is", before)] + [
            (_promise(mode, beta, math.prod(before.shape[1:])), after.get((mode, beta)))
            for beta in betas
        ]
        for column, (title, images) in enumerate(columns):
            if images is None:
                continue
            left = GAP + column * (width + GAP)
            for row, image in enumerate(images):
                down = top + NAME + TITLE + row * (height + GAP)
                axes = tiles.place(figure, stretched(image), left, down, width, height)
                if column == 0:
                    axes.text(
                        0.02, 0.98, Path(sources[row]).name, transform=axes.transAxes, **NAMES
                    )
                if row == 0:
                    axes.set_title(title, fontsize=6.5, weight="normal", loc="left", pad=3)
    return figure


def stretched(image: np.ndarray) -> np.ndarray:
    """The image as uint8, its 5th percentile black and its 95th white."""
    low, high = np.percentile(image, (5, 95))
    shares = (image.astype(float) - low) / max(high - low, 1)
    return (255 * shares.clip(0, 1)).astype(np.uint8)


def _promise(mode: str, beta: float, numbers: int) -> str:
    if mode != "laplace":
        return f"β = {beta:g}: no ε"
    return f"β = {beta:g}: ε {1 / beta:.3g} a pixel,\n{numbers / beta:,.0f} an image"
