"""Segmentation: a class for every pixel."""

from __future__ import annotations

import numpy as np

from dpmedbench.losses import segmentation_loss as loss
from dpmedbench.metrics import SegmentationScores as Scores
from dpmedbench.metrics import most_frequent_class

__all__ = ["Scores", "constant_scores", "loss", "row"]


def constant_scores(training_targets: np.ndarray, targets, num_classes: int) -> dict:
    """Scores on `targets` (n, H, W) of answering the most frequent training class everywhere."""
    import torch

    scores = Scores(num_classes)
    scores.update(torch.full_like(targets, most_frequent_class(training_targets)), targets)
    return scores.compute()


def row(scores: dict, prefix: str) -> dict[str, float]:
    """The mean scores as columns of the history."""
    keys = ("dice", "dice_with_background", "miou", "pixel_accuracy")
    return {f"{prefix}_{key}": scores[key] for key in keys}
