"""The look of classes: colours of a mask, on its own or over a scan, and their legend entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Patch

from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKGROUND = "#ffffff"
# Of the schemes of Okabe and Ito and of Paul Tol, chosen by search: any two of these, white and the
# grey are at least 16 apart in CIELAB, and neighbouring layers at least 35, to a reader of full
# colour vision and to one without red, green or blue cones (Machado et al. 2009).
LAYERS = ("#aa3377", "#66ccee", "#332288", "#009e73", "#f0e442", "#0072b2", "#e69f00")
FINDING = "#d55e00"  # the last class: in all datasets here the fluid among the anatomy
OPAQUE = 0.65  # of a class over a scan
HATCH, HATCH_COLOUR = "/////", "#7d7d7d"


def colours(count: int) -> list[str]:
    """A colour for each of `count` classes: class 0, the background, is white."""
    if count <= len(LAYERS) + 2:
        return [BACKGROUND, *LAYERS[: count - 2], FINDING]
    return [BACKGROUND, *(to_hex(colour) for colour in sns.color_palette("husl", count - 1))]


def paint(mask: np.ndarray, count: int) -> np.ndarray:
    """A mask (H, W) of `count` classes as RGB (H, W, 3) in [0, 1]; not graded (255) is grey."""
    table = np.tile(np.array(to_rgb(style.VOID)), (256, 1))
    table[:count] = [to_rgb(colour) for colour in colours(count)]
    return table[mask]


def overlay(image: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """A scan (uint8, (H, W) or (H, W, 3)) as RGB, the classes above 0 laid over it, grey instead
    of it where it is not graded."""
    base = image / 255.0
    base = np.repeat(base[..., None], 3, axis=2) if base.ndim == 2 else base
    weight = np.select([mask == 0, mask == IGNORE], [0.0, 1.0], OPAQUE)[..., None]
    return (1 - weight) * base + weight * paint(mask, count)


def hatch(axes: Axes, mask: np.ndarray) -> None:
    """Hatch the pixels of a shown mask (H, W) that were not graded: grey alone could be a scan."""
    where = mask == IGNORE
    if not where.any():
        return
    # A rim outside the picture, so that the hatching reaches its border.
    rim = np.pad(where, 1, mode="edge").astype(float)
    rows, columns = (np.arange(-1, length + 1) for length in where.shape)
    limits = axes.axis()
    drawn = axes.contourf(columns, rows, rim, levels=[0.5, 1.5], colors="none", hatches=[HATCH])
    drawn.set(edgecolor=HATCH_COLOUR, linewidth=0)
    axes.axis(limits)


def entries(names: Sequence[str], *, ungraded: bool) -> list[Patch]:
    """Legend entries of the classes, and of "not graded" where some pixels are."""
    made = [entry(colour, name) for colour, name in zip(colours(len(names)), names, strict=True)]
    if ungraded:
        made.append(Patch(fc=style.VOID, ec=HATCH_COLOUR, hatch=HATCH, lw=0, label="not graded"))
    return made


def entry(colour: str, label: str) -> Patch:
    """A legend entry: a small box of a colour."""
    return Patch(facecolor=colour, edgecolor=style.MUTED, linewidth=0.4, label=label)
