"""What the figures of pictures share: tiles placed by the inch, masks in the colours of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from dpmedbench.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IGNORE = 255


def colour_mask(mask: np.ndarray, classes: int) -> np.ndarray:
    """A mask (H, W) of class numbers as an RGB picture (H, W, 3) in [0, 1]; 255 is grey."""
    table = np.tile(np.array(to_rgb(style.IGNORED)), (256, 1))
    table[:classes] = [to_rgb(colour) for colour in style.class_colours(classes)]
    return table[mask]


def overlay(image: np.ndarray, mask: np.ndarray, classes: int, alpha: float = 0.65) -> np.ndarray:
    """A scan (uint8, (H, W) or (H, W, 3)) with the classes above 0 laid over it, as RGB."""
    base = image / 255.0
    base = np.repeat(base[..., None], 3, axis=2) if base.ndim == 2 else base
    weight = np.where(mask == 0, 0.0, alpha)[..., None]
    return (1 - weight) * base + weight * colour_mask(mask, classes)


def telling(targets: np.ndarray, patients: Sequence[str], count: int = 2) -> list[int]:
    """Positions of the `count` masks with the most classes, of different patients if possible.

    Among equals the first wins, so the choice does not depend on any prediction.
    """
    richness = [len(np.setdiff1d(target, [IGNORE])) for target in targets]
    order = sorted(range(len(targets)), key=lambda i: (-richness[i], i))
    chosen: list[int] = []
    for fresh in (True, False):
        for index in order:
            seen = patients[index] in {patients[i] for i in chosen}
            if len(chosen) < count and index not in chosen and not (fresh and seen):
                chosen.append(index)
    return chosen


def place(
    figure: Figure, picture: np.ndarray, left: float, top: float, width: float, height: float
) -> Axes:
    """Show a picture in a box whose upper left corner lies `left`, `top` inches from that of the
    figure."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
    )
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color=style.MUTED)
    return axes


def class_legend_height(classes: Sequence[str], width: float) -> float:
    """Inches that the legend of the classes takes below the tiles of a figure `width` wide."""
    return 0.155 * -(-(len(classes) + 1) // _across(classes, width)) + 0.14


def class_legend(figure: Figure, classes: Sequence[str], *, ignored: bool) -> None:
    """The legend of the classes at the foot of a figure, with "not graded" where some is."""
    width = figure.get_figwidth()
    handles = [
        Patch(facecolor=colour, edgecolor=style.MUTED, linewidth=0.4, label=label)
        for label, colour in zip(classes, style.class_colours(len(classes)), strict=True)
    ]
    if ignored:
        handles.append(
            Patch(facecolor=style.IGNORED, edgecolor=style.MUTED, linewidth=0.4, label="not graded")
        )
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(_across(classes, width), len(handles)),
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.0,
        borderaxespad=0.3,
    )


def _across(classes: Sequence[str], width: float) -> int:
    longest = max(len(label) for label in [*classes, "not graded"])
    return max(1, int((width - 0.2) / (0.068 * longest + 0.35)))
