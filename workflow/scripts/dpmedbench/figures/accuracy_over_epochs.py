"""Accuracy over epochs

Share of the images of {dataset} that are classified right, over {epochs} epochs (learning rate
{learning_rate}): of those drawn for training, as seen while the weights change; of the validation
and of the test patients, after each epoch. Mechanisms: {mechanisms}; noise: {noise}. Dashed: the
constant predictor, the commonest class of the training set. Circle: the best epoch of a line on the
test set. Reporting that epoch selects it by the test set; it is shown because studies do so, and
nothing here is selected by it. Accuracy in training is computed on private data and is not covered
by epsilon. The published curves are of 120 epochs, as many as the study local_dp_curves runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from dpmedbench.figures import live, style
from dpmedbench.figures.curves import curves, reference, reference_handle, stacked

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = 61
NEEDS = ("history",)
TASK = "classification"
PUBLISHED = {"local_dp": "Figure 3"}

PARTS = {
    "train_accuracy": "training",
    "val_accuracy": "validation",
    "test_accuracy": "test",
}
CIRCLE = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


def draw(history: pd.DataFrame) -> Figure:
    """A row of panels a model: training, validation and test."""
    local = history["privacy"].str.startswith("beta").any()
    frame = stacked(history, PARTS, "accuracy", by_model=True)
    figure, panels = curves(
        frame,
        "accuracy",
        "accuracy (0 to 1)",
        empty="no accuracy: nothing was scored",
        references=[
            (
                "Reference",
                [
                    ("constant predictor", reference_handle(style.DASHED)),
                    ("best, test-selected", Line2D([], [], color=style.MUTED, **CIRCLE)),
                ],
            )
        ],
        log=False,
        notes=["with noise on the images (β): the test images have none"] if local else [],
    )
    pairs = [(model, part) for model in history["model"].unique() for part in PARTS]
    of_panel = dict(zip(frame["model"].unique(), pairs, strict=True))
    for name, axes in panels:
        model, part = of_panel[name]
        if part != "train_accuracy":
            constant = history.loc[history["model"] == model, f"constant_{part}"].mean()
            reference(axes, constant, style.DASHED, "constant predictor")
        if part == "test_accuracy":
            _mark_best(axes)
        axes.set_ylim(-0.03, 1.03)
    return figure


def numbers(history: pd.DataFrame) -> str:
    """Accuracy on the test set, and on the training set, in the last epoch."""
    test = live.last_epoch(history, "test_accuracy", what="Accuracy on the test set")
    train = live.last_epoch(history, "train_accuracy", what="On the training set")
    return f"{test} {train}".strip()


def _mark_best(axes: Axes) -> None:
    for line in axes.get_lines():
        if "/" in str(line.get_label()):
            epochs, values = line.get_data()
            best = values.argmax()
            axes.plot(epochs[best], values[best], color=line.get_color(), label="best", **CIRCLE)
