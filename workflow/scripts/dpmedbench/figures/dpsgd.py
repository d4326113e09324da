"""A step of DP-SGD

What a private step of training does here. Each record enters the batch by itself with probability
q = B / N, so that the size of the batch varies and may be 0 (Poisson sampling). The gradient of
each record is clipped to length R; the clipped gradients are added up, and Gaussian noise of
standard deviation sigma R on every coordinate to the sum. It is divided by the expected batch size
B, a public number, never by the size of the batch. The optimiser sees the noisy mean alone. The
accountant needs q, sigma and the number of steps, not the data. Drawn by hand, of no run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from dpmedbench.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDER = 5
NEEDS = ()
SCOPE = "study"
PUBLISHED = {"bookkeeping": "Figure 1", "clipping": "How DP-SGD works"}

WIDTH, MIDDLE = style.DOUBLE / 5, 1.75  # inches
SAMPLED, CUT, NOISE, UPDATE = "#0072b2", "#d55e00", "#e69f00", "#009e73"
R = 0.3  # inches
GRADIENTS = np.array([(0.5, 0.2), (0.1, 0.24), (-0.36, 0.32), (0.22, -0.14), (0.34, 0.42)])
LOT = {3, 8, 9, 17, 26}  # of 30 records
STEPS = (
    ("1  Poisson sample", "each of N records\nwith probability q"),
    ("2  Gradients", "one for each\nsampled record"),
    ("3  Clip", "those longer than R\nto length R"),
    ("4  Sum, add noise", "N(0, σ²R²) on\nevery coordinate"),
    ("5  Divide, step", "by the expected\nbatch size B = q N"),
)


def draw() -> Figure:
    """Five pictures in a row, the loop above and the accountant below them."""
    figure = Figure(figsize=(style.DOUBLE, 3.0))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, style.DOUBLE), ylim=(0, 3.0))
    axes.axis("off")
    middles = [WIDTH * (place + 0.5) for place in range(5)]
    for x, (title, words) in zip(middles, STEPS, strict=True):
        axes.text(x, MIDDLE + 0.76, title, ha="center", va="center", weight="bold")
        axes.text(x, MIDDLE - 0.7, words, ha="center", va="center", fontsize=style.SMALL)
    for x in middles[:-1]:
        _arrow(axes, (x + 0.55, MIDDLE), (x + 0.88, MIDDLE), style.MUTED, 1.2)
    _records(axes, middles[0])
    lengths = np.linalg.norm(GRADIENTS, axis=1, keepdims=True)
    clipped = GRADIENTS * np.minimum(1, R / lengths)
    _gradients(axes, middles[1], GRADIENTS)
    _gradients(axes, middles[2], clipped, before=GRADIENTS)
    noisy = _noisy_sum(axes, middles[3], clipped.sum(axis=0))
    _step(axes, middles[4], noisy)
    _loop(axes, middles)
    _accountant(axes)
    return figure


def _records(axes: Axes, x: float) -> None:
    for number in range(30):
        row, column = divmod(number, 6)
        centre = (x + 0.15 * (column - 2.5), MIDDLE + 0.16 * (2 - row))
        colour = SAMPLED if number in LOT else "#d0d0d0"
        axes.add_patch(Circle(centre, 0.055, facecolor=colour, linewidth=0))


def _gradients(axes: Axes, x: float, ends: np.ndarray, before: np.ndarray | None = None) -> None:
    """Arrows from one point, the circle of radius R around it, what was cut off dotted."""
    axes.add_patch(Circle((x, MIDDLE), R, facecolor="none", edgecolor=CUT, ls="--", lw=0.9))
    axes.text(x + 0.2, MIDDLE - 0.33, "R", color=CUT, fontsize=style.SMALL, ha="center")
    for number, end in enumerate(ends):
        if before is not None:
            axes.plot(
                [x + end[0], x + before[number][0]],
                [MIDDLE + end[1], MIDDLE + before[number][1]],
                color="#a0a0a0",
                linestyle=":",
                linewidth=0.9,
            )
        _arrow(axes, (x, MIDDLE), (x + end[0], MIDDLE + end[1]), SAMPLED, 1.2)


def _noisy_sum(axes: Axes, x: float, total: np.ndarray) -> np.ndarray:
    """The sum with the noise around its end; returns the noisy sum as drawn."""
    total = 0.55 * total
    start = np.array([x - 0.25, MIDDLE - 0.28])
    noise = np.random.default_rng(3).normal(0, 0.12, (150, 2))
    axes.scatter(*(start + total + noise).T, s=1.5, color=NOISE, alpha=0.5, linewidth=0)
    noisy = total + np.array([0.16, -0.13])
    _arrow(axes, start, start + total, SAMPLED, 1.6)
    _arrow(axes, start + total, start + noisy, NOISE, 1.4)
    axes.text(
        *(start + np.array([0.02, 0.4])), "sum", color=SAMPLED, fontsize=style.SMALL, ha="center"
    )
    axes.text(
        *(start + noisy + np.array([0.02, -0.1])), "noise", color="#9a6a00", fontsize=style.SMALL
    )
    return noisy


def _step(axes: Axes, x: float, noisy: np.ndarray) -> None:
    """The weights before and after a step against the noisy mean."""
    start = np.array([x + 0.22, MIDDLE + 0.2])
    end = start - 0.65 * noisy
    _arrow(axes, start, end, UPDATE, 1.8)
    axes.plot(*start, "o", color="black")
    axes.plot(*end, "o", color=UPDATE)
    axes.text(start[0], start[1] + 0.1, "weights", fontsize=style.SMALL, ha="center")
    axes.text(end[0], end[1] - 0.18, "new weights", fontsize=style.SMALL, ha="center")


def _loop(axes: Axes, middles: list[float]) -> None:
    top = MIDDLE + 1.08
    _arrow(axes, (middles[-1], top), (middles[0], top), style.MUTED, 1.2)
    axes.text(
        np.mean(middles), top, "  next step: a new sample, the new weights  ", ha="center",
        va="center", fontsize=style.SMALL, color=style.MUTED, backgroundcolor="white",
    )  # fmt: skip


def _accountant(axes: Axes) -> None:
    box = FancyBboxPatch(
        (0.25, 0.14), style.DOUBLE - 0.5, 0.4, boxstyle="round,pad=0,rounding_size=0.06",
        facecolor="#f3f3f3", edgecolor=style.MUTED, linewidth=0.6,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(
        style.DOUBLE / 2, 0.34,
        "Accountant:  q, σ, number of steps, δ  →  ε, whatever the data, the network or the engine",
        ha="center", va="center",
    )  # fmt: skip


def _arrow(axes: Axes, start, end, colour: str, width: float) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>,head_length=3.5,head_width=1.8", color=colour,
            linewidth=width, shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
