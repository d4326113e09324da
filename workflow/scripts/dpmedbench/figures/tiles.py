"""What the figures of pictures share: which scans, tiles placed by the inch, a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import classes, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

ROW = 0.155  # inches of a row of a legend


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
    figure: Figure,
    picture: np.ndarray,
    left: float,
    top: float,
    width: float,
    height: float,
    mask: np.ndarray | None = None,
) -> Axes:
    """Show a picture in a box whose upper left corner lies `left`, `top` inches from that of the
    figure; what is not graded in its `mask` is hatched."""
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
    if mask is not None:
        classes.hatch(axes, mask)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color=style.MUTED)
    return axes


def legend_height(entries: Sequence[Patch | Line2D], width: float) -> float:
    """Inches that a legend of `entries` takes below the tiles of a figure `width` wide."""
    return ROW * -(-len(entries) // _across(entries, width)) + 0.14


def legend(figure: Figure, entries: Sequence[Patch | Line2D], above: float = 0.0) -> None:
    """A legend at the foot of a figure, `above` inches from its edge."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=entries,
        loc="lower center",
        bbox_to_anchor=(0.5, above / height),
        ncols=min(_across(entries, width), len(entries)),
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.0,
        borderaxespad=0.3,
    )


def _across(entries: Sequence[Patch | Line2D], width: float) -> int:
    longest = max(len(entry.get_label()) for entry in entries)
    return max(1, int((width - 0.2) / (0.068 * longest + 0.35)))
