"""Classification: a class for every image.

The test set is scored after each epoch too, because published studies report the best epoch on
it. Nothing is selected by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from dpmedbench.classification_metrics import METRICS, ClassificationScores
from dpmedbench.constant_predictor import most_frequent_class
from dpmedbench.errors import UserError
from dpmedbench.losses import classification_loss


class Task:
    """Classification into `num_classes` classes; `tasks` explains the members.

    `class_weights` has the weight of each class in the loss; None: 1. UserError where their number
    is not that of the classes.
    """

    EVALUATED = ("val", "test")
    FOLLOWS_TRAINING = True
    SELECTED_BY = "val_balanced_accuracy"

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None):
        if class_weights is not None and len(class_weights) != num_classes:
            raise UserError(
                f"class_weights: found {len(class_weights)} numbers, expected one for each of the "
                f"{num_classes} classes of the dataset; write them in the order of the classes"
            )
        self.num_classes = num_classes
        self.loss = partial(classification_loss, weights=class_weights)

    def scores(self) -> ClassificationScores:
        """Scores of logits (B, C) and labels (B,)."""
        return ClassificationScores(self.num_classes)

    def row(self, scores: dict, part: str) -> dict[str, float]:
        """Every score."""
        return {f"{part}_{key}": scores[key] for key in METRICS}

    def constant_row(
        self, training_targets: np.ndarray, targets: torch.Tensor, part: str
    ) -> dict[str, float]:
        """The scores of answering, sure of it, the most frequent training class for every image."""
        scores = self.scores()
        sure = torch.full((len(targets), self.num_classes), -torch.inf, device=targets.device)
        sure[:, most_frequent_class(training_targets)] = 0
        scores.update(sure, targets)
        return self.row(scores.compute(), f"constant_{part}")

    def summary(self, row: dict) -> str:
        """The validation accuracy, plain and balanced."""
        return (
            f"validation accuracy {row['val_accuracy']:.3f} "
            f"(balanced {row['val_balanced_accuracy']:.3f})"
        )
