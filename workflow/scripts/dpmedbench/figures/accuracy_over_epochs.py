"""Accuracy over epochs

Share of the images of {dataset} that are classified right, over {epochs} epochs (learning rate
{learning_rate}): of those drawn for training, as seen while the weights change; of the validation
and of the test patients, after each epoch. Mechanisms: {mechanisms}; noise: {noise}. Dashed: the
constant predictor, the commonest class of the training set. Circle: the best epoch of a line on the
test set. Reporting that epoch selects it by the test set; it is shown because studies do so, and
nothing here is selected by it. Accuracy in training is computed on private data and is not covered
by epsilon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from dpmedbench.figures import style, wording
from dpmedbench.figures.curves import curves, reference, reference_handle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CATEGORY = "Utility"
ORDER = 61
NEEDS = ("history",)
TASK = "classification"

PARTS = {"train": "training", "val": "validation", "test": "test"}
DASHED = (0, (6, 3))
CIRCLE = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


def draw(history: pd.DataFrame) -> Figure:
    """A row of panels a model: training, validation and test."""
    local = history["privacy"].str.startswith("beta").any()
    figure, panels = curves(
        by_part(history),
        "accuracy",
        "accuracy (0 to 1)",
        empty="no accuracy: nothing was scored",
        references=[
            (
                "Reference",
                [
                    ("constant predictor", reference_handle(DASHED)),
                    ("best, test-selected", Line2D([], [], color=style.MUTED, **CIRCLE)),
                ],
            )
        ],
        log=False,
        notes=["with noise on the images (β): the test images have none"] if local else [],
    )
    for model, row in zip(history["model"].unique(), _triples(panels), strict=False):
        rows = history[history["model"] == model]
        for part, axes in zip(PARTS, row, strict=True):
            if part != "train":
                constant = rows[f"constant_{part}_accuracy"].mean()
                reference(axes, constant, DASHED, "constant predictor")
            axes.set_ylim(-0.03, 1.03)
        _mark_best(row[-1])
    return figure


def by_part(history: pd.DataFrame) -> pd.DataFrame:
    """A row for each epoch and part of the data, `model` naming both, with its `accuracy`."""
    import pandas as pd

    frames = [
        rows.assign(model=f"{wording.name(model)}\n{title}", accuracy=rows[f"{part}_accuracy"])
        for model, rows in history.groupby("model", sort=False)
        for part, title in PARTS.items()
    ]
    found = pd.concat(frames, ignore_index=True) if frames else history.assign(accuracy=[])
    found.attrs = history.attrs
    return found


def _mark_best(axes: Axes) -> None:
    for line in axes.get_lines():
        if "/" in str(line.get_label()):
            epochs, values = line.get_data()
            best = values.argmax()
            axes.plot(epochs[best], values[best], color=line.get_color(), label="best", **CIRCLE)


def _triples(panels: list[Axes]) -> list[list[Axes]]:
    return [panels[start : start + 3] for start in range(0, len(panels) - 2, 3)]
