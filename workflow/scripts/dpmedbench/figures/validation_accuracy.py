"""Validation accuracy

After each epoch ({epochs} epochs, learning rate {learning_rate}), on the validation patients of
{dataset}. Pixel accuracy: share of the graded pixels that get their class; left out where there are
too many lines. Dice: mean over the classes without background. Mechanisms: {mechanisms}; noise:
{noise}. Dashed: the constant predictor, which gives every pixel the commonest class: its pixel
accuracy is high because most pixels are background, its Dice is 0. Dotted, on the published Duke
scans alone: the Dice between their two graders, 0.79.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dpmedbench.figures import live, style
from dpmedbench.figures.curves import crowded, curves, reference, reference_handle, stacked

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 60
NEEDS = ("history", "real")
TASK = "segmentation"
PUBLISHED = {"clipping": "Accuracy over iterations", "bookkeeping": "Validation Dice"}

PARTS = {"val_pixel_accuracy": "pixel accuracy", "val_dice": "Dice"}
# Mean Dice between the two graders of the scans of a loader.
GRADERS = {"duke": 0.79}
DOTTED = (0, (1, 2))


def draw(history: pd.DataFrame, real: Mapping[str, str]) -> Figure:
    """A row of panels for pixel accuracy and one for Dice, a column a model."""
    models = list(history["model"].unique())
    parts = {"val_dice": "Dice"} if crowded(history) else PARTS
    graders = GRADERS.get(real.get(style.dataset(history)))
    entries = [("constant predictor", reference_handle(style.DASHED))]
    if graders is not None:
        entries.append(("between graders", reference_handle(DOTTED)))
    frame = stacked(history, parts, "score", by_model=False)
    shared = True if len(parts) == 1 else "row" if len(models) > 1 else False
    figure, panels = curves(
        frame,
        "score",
        "validation Dice\n(0 to 1)" if len(parts) == 1 else "",
        empty="no score: never validated, or no class present",
        references=[("Reference", entries)],
        log=False,
        across=max(len(models), 2) if len(parts) > 1 else 3,
        sharey=shared,
        notes=["pixel accuracy is left out"] if len(parts) == 1 else [],
    )
    pairs = [(model, part) for part in parts for model in models]
    of_panel = dict(zip(frame["model"].unique(), pairs, strict=True))
    for place, (name, axes) in enumerate(panels):
        model, part = of_panel[name]
        constant = history.loc[history["model"] == model, f"constant_{part}"].mean()
        if constant == constant:
            reference(axes, constant, style.DASHED, "constant predictor")
        if graders is not None and part == "val_dice":
            reference(axes, graders, DOTTED, "between graders")
        if part == "val_dice":
            axes.set_ylim(-0.03, 1)
        if len(parts) > 1 and place % len(models) == 0:
            axes.set_ylabel(f"{parts[part]} (0 to 1)")
    return figure


def numbers(history: pd.DataFrame) -> str:
    """Dice in the last epoch."""
    return live.last_epoch(history, "val_dice", what="Dice")
