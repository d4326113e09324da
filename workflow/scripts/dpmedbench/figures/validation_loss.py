"""Validation loss

Loss (cross-entropy + Dice) on the validation patients of {dataset} after each epoch ({epochs}
epochs, learning rate {learning_rate}). Mechanisms: {mechanisms}; noise: {noise}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CATEGORY = "Training"
ORDER = 40
NEEDS = ("history",)


def draw(history: pd.DataFrame) -> Figure:
    """Validation loss over epochs."""
    return curves(
        history,
        "val_loss",
        "validation loss\n(cross-entropy + Dice)",
        empty="no finite validation loss: not validated, or every epoch diverged",
    )[0]
