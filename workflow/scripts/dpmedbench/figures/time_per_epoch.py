"""Time per epoch

Seconds that the training part of each epoch took on {dataset} ({epochs} epochs, expected batch
size {batch_size}; validation not included). Mechanisms: {mechanisms}; noise: {noise}. With Poisson
sampling the number of images in an epoch varies, and so does its time. The axis is logarithmic
where times differ by a factor of two or more: equal distances are equal ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import live
from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 20
NEEDS = ("history",)
PUBLISHED = {"bookkeeping": "Figures 5 and 6", "clipping": "Training time over iterations"}

FACTOR = 0.3  # decades from which on the axis is logarithmic: a factor of two


def draw(history: pd.DataFrame) -> Figure:
    """Seconds per epoch over epochs."""
    devices = history["device"].dropna().unique()
    figure, panels = curves(
        history,
        "seconds",
        "training time per epoch (s)",
        empty="no epoch was timed",
        log=FACTOR,
        notes=[f"of several devices: {', '.join(devices)}"] if len(devices) > 1 else [],
    )
    if panels and panels[0][1].get_yscale() == "linear":
        panels[0][1].set_ylim(bottom=0)
    return figure


def numbers(history: pd.DataFrame) -> str:
    """The shortest and longest epoch of each mechanism."""
    said = live.ranges(history, "seconds", ".3g", " s", over=["epoch"])
    return said and f"Shortest to longest epoch: {said}."
