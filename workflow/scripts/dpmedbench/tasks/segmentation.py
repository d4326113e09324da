"""Segmentation: a class for every pixel."""

from __future__ import annotations

import numpy as np
import torch

from dpmedbench.constant_predictor import most_frequent_class
from dpmedbench.losses import segmentation_loss
from dpmedbench.segmentation_metrics import SegmentationScores

MEANS = ("dice", "dice_with_background", "miou", "pixel_accuracy")


class Task:
    """Segmentation into `num_classes` classes; `tasks` explains the members."""

    EVALUATED = ("val",)
    FOLLOWS_TRAINING = False
    SELECTED_BY = "val_dice"

    loss = staticmethod(segmentation_loss)

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def scores(self) -> SegmentationScores:
        """Scores of logits (B, C, H, W) and masks (B, H, W)."""
        return SegmentationScores(self.num_classes)

    def row(self, scores: dict, part: str) -> dict[str, float]:
        """The means, and the Dice of each class."""
        dice = {f"{part}_dice_{c}": value for c, value in enumerate(scores["dice_per_class"])}
        return {f"{part}_{key}": scores[key] for key in MEANS} | dice

    def constant_row(
        self, training_targets: np.ndarray, targets: torch.Tensor, part: str
    ) -> dict[str, float]:
        """The means of answering the most frequent training class at every pixel."""
        scores = self.scores()
        scores.update(torch.full_like(targets, most_frequent_class(training_targets)), targets)
        found = scores.compute()
        return {f"constant_{part}_{key}": found[key] for key in MEANS}

    def summary(self, row: dict) -> str:
        """The mean validation Dice."""
        return f"validation Dice {row['val_dice']:.3f}"
