"""Time per epoch

Seconds that the training part of each epoch took on {dataset} ({epochs} epochs, expected batch
size {batch_size}; validation not included). Mechanisms: {mechanisms}; noise: {noise}. With Poisson
sampling the number of images in an epoch varies, and so does its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CATEGORY = "Training"
ORDER = 20
NEEDS = ("history",)


def draw(history: pd.DataFrame) -> Figure:
    """Seconds per epoch over epochs."""
    figure, panels = curves(
        history, "seconds", "training time per epoch (s)", empty="no epoch was timed"
    )
    if panels[0].get_yscale() == "linear":
        panels[0].set_ylim(bottom=0)
    return figure
