"""Validation loss

Loss on the validation patients of {dataset} after each epoch ({epochs} epochs, learning rate
{learning_rate}). Mechanisms: {mechanisms}; noise: {noise}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import live, style
from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 40
NEEDS = ("history",)
PUBLISHED = {"bookkeeping": "Figures 9 and 10", "clipping": "Validation loss over iterations"}


def draw(history: pd.DataFrame) -> Figure:
    """Validation loss over epochs."""
    return curves(
        history,
        "val_loss",
        f"validation loss\n({style.loss(history)})",
        empty="no finite validation loss: not validated, or every epoch diverged",
    )[0]


def numbers(history: pd.DataFrame) -> str:
    """What every setting has in the last epoch."""
    return live.last_epoch(history, "val_loss", ".3g")
