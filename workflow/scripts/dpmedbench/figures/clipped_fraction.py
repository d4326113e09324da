"""Clipped gradients over epochs

Share of the per-sample gradients that were shortened in each epoch of training on {dataset}
(mechanisms: {mechanisms}; noise: {noise}): of samples where one norm is clipped, of (sample,
tensor) pairs where each tensor is clipped by itself. Near 1, the threshold R decides the length of
every update and a larger R would only scale it; near 0, R is higher than needed, and with it the
noise. Automatic clipping scales every gradient to about R; here are those that it shortens.
Training without private gradients has no norm of a single sample. This is computed from the
training data and is not covered by epsilon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import live
from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 231
NEEDS = ("history",)

NOTHING = "no gradient norms: training was not private, or its engine cannot tell"


def draw(history: pd.DataFrame) -> Figure:
    """The share of clipped gradients over epochs."""
    figure, panels = curves(
        measured(history),
        "clipped_fraction",
        "clipped gradients (0 to 1)",
        empty=NOTHING,
        log=False,
        notes=["without private gradients: no norms"]
        if (history["privacy"] == "none").any()
        else [],
    )
    for _, axes in panels:
        axes.set_ylim(-0.03, 1.03)
    return figure


def numbers(history: pd.DataFrame) -> str:
    """The share of clipped gradients in the last epoch."""
    return live.last_epoch(measured(history), "clipped_fraction", ".0%")


def measured(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells whose gradients are clipped; all where there are none."""
    private = history[history["effective_max_grad_norm"].notna()]
    return private if len(private) else history
