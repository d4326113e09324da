"""Training loss

Mean loss over the images drawn in each epoch on {dataset}, computed while the weights change
({epochs} epochs, learning rate {learning_rate}, expected batch size {batch_size}). Mechanisms:
{mechanisms}; noise: {noise}. A training loss is computed on private data: it is a diagnostic and
is not covered by epsilon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import live, style
from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 30
NEEDS = ("history",)
PUBLISHED = {"bookkeeping": "Figures 7 and 8", "clipping": "Training loss over iterations"}


def draw(history: pd.DataFrame) -> Figure:
    """Training loss over epochs."""
    return curves(
        history,
        "train_loss",
        f"training loss\n({style.loss(history)})",
        empty="no finite training loss: every epoch diverged",
    )[0]


def numbers(history: pd.DataFrame) -> str:
    """What every setting has in the last epoch."""
    return live.last_epoch(history, "train_loss", ".3g")
