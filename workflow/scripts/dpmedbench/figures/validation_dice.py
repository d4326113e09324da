"""Validation Dice

Mean Dice over the classes without background on the validation patients of {dataset} after each
epoch ({epochs} epochs, learning rate {learning_rate}). Mechanisms: {mechanisms}; noise: {noise}.
Dashed: the constant predictor, which gives every pixel the commonest class. On Duke the dotted
line is the agreement of the two graders, 0.79.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import style
from dpmedbench.figures.curves import curves, reference, reference_handle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CATEGORY = "Utility"
ORDER = 60
NEEDS = ("history",)
TASK = "segmentation"

# Mean Dice between the two graders of the Duke scans.
GRADERS = {"duke": 0.79}
DASHED, DOTTED = (0, (6, 3)), (0, (1, 2))


def draw(history: pd.DataFrame) -> Figure:
    """Validation Dice over epochs with its two references."""
    graders = GRADERS.get(style.dataset(history))
    entries = [("constant predictor", reference_handle(DASHED))]
    if graders is not None:
        entries.append(("between graders", reference_handle(DOTTED)))
    figure, panels = curves(
        history,
        "val_dice",
        "validation Dice (0 to 1)",
        empty="no Dice: never validated, or no class present",
        references=[("Reference", entries)],
        log=False,
    )
    for model, axes in zip(history["model"].unique(), panels, strict=False):
        constant = history.loc[history["model"] == model, "constant_val_dice"].mean()
        if constant == constant:
            reference(axes, constant, DASHED, "constant predictor")
        if graders is not None:
            reference(axes, graders, DOTTED, "between graders")
        axes.set_ylim(-0.03, 1)
    return figure
