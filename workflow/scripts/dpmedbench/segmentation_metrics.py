"""Scores of a segmentation against its truth.

Absent-class rule, for every score of an image: a class that is neither in the truth nor in the
prediction has no score (NaN, left out of every mean); one that is only in the prediction or only
in the truth scores Dice 0 and IoU 0. Distances (HD95, boundary error) need both sides and are NaN
otherwise. Pixels whose truth is 255 were not graded: neither they nor what is predicted there
counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpmedbench import means
from dpmedbench.datasets.base import IGNORE

if TYPE_CHECKING:
    import torch


class SegmentationScores:
    """Scores over many images, gathered on their device and read once at the end.

    One confusion matrix an image is kept on the device; `update` never waits for the device, so
    it can be called at every batch of every epoch.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._counts: list[torch.Tensor] = []
        self._invalid: list[torch.Tensor] = []

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Add images: logits (B, C, H, W) or labels (B, H, W), and their truth (B, H, W)."""
        import torch

        labels = prediction.argmax(1) if prediction.ndim == target.ndim + 1 else prediction
        truth, labels, classes = target.long(), labels.long(), self.num_classes
        cells = len(truth) * classes**2
        graded = truth != IGNORE
        valid = graded & (truth < classes) & (labels < classes)
        image = torch.arange(len(truth), device=truth.device).view(-1, 1, 1)
        cell = (image * classes + truth) * classes + labels
        cell = torch.where(valid, cell, cells).flatten()
        # Not bincount, which asks a GPU for the largest value and waits; sums of integers are
        # the same in any order.
        counts = torch.zeros(cells + 1, dtype=torch.int64, device=truth.device)
        counts.scatter_add_(0, cell, torch.ones_like(cell))
        self._counts.append(counts[:-1].view(-1, classes, classes))
        self._invalid.append((graded & ~valid).sum())

    def compute(self) -> dict[str, float | list[float]]:
        """The scores, each in [0, 1], or NaN where no image defines them.

        `dice_per_class` and the IoU per class are means over the images where they are defined.
        `dice` is the mean of `dice_per_class` without class 0, `dice_with_background` with it;
        `miou` is the mean of the IoU over all classes; `pixel_accuracy` is the share of right
        pixels among all graded pixels of all images.

        Raises ValueError where a label was neither a class nor, in the truth, 255.
        """
        import torch

        if not self._counts:
            raise ValueError("no image was scored")
        if invalid := int(torch.stack(self._invalid).sum()):
            raise ValueError(f"{invalid} graded pixels have a label above {self.num_classes - 1}")
        counts = torch.cat(self._counts).cpu().numpy()
        dice, iou = overlap(counts)
        per_class = means.plain(dice, axis=0)
        pooled = counts.sum(0)
        return {
            "dice": float(means.plain(per_class[1:])),
            "dice_with_background": float(means.plain(per_class)),
            "miou": float(means.plain(means.plain(iou, axis=0))),
            "pixel_accuracy": float(np.trace(pooled) / pooled.sum()) if pooled.any() else np.nan,
            "dice_per_class": per_class.tolist(),
        }


def image_scores(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, boundaries: int = 0
) -> dict[str, np.ndarray]:
    """Scores of each class in one image: columns of `num_classes` rows.

    `prediction` and `truth` are label images (H, W). The columns: `class`; `present` (in the
    truth); `dice` and `iou` in [0, 1]; `hd95` (`hausdorff95`) and `boundary_mae`, in pixels;
    `pixels` (graded pixels of the class in the truth).

    With `boundaries` > 0 the classes 1..boundaries-1 are layers, stacked from the top.
    `boundary_mae` of class c is the mean absolute distance in rows between the boundaries under
    class c-1 and above class c (`boundary_rows`) of both sides, over the columns that are graded
    from top to bottom and in which both sides have it. The last boundary, from the last layer to
    the background under it, is in the row of class 0. Other classes have NaN.
    """
    graded = truth != IGNORE
    prediction = np.where(graded, prediction, IGNORE)
    if max(truth[graded].max(initial=0), prediction[graded].max(initial=0)) >= num_classes:
        raise ValueError(f"a graded pixel has a label above {num_classes - 1}")
    cell = truth[graded].astype(np.int64) * num_classes + prediction[graded]
    counts = np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)
    dice, iou = overlap(counts)
    pixels = counts.sum(1)

    hd95 = np.full(num_classes, np.nan)
    for label in np.flatnonzero(pixels * counts.sum(0)):
        hd95[label] = hausdorff95(prediction == label, truth == label)

    boundary_mae = np.full(num_classes, np.nan)
    if boundaries:
        columns = graded.all(0)
        error = np.abs(
            boundary_rows(prediction[:, columns], boundaries)
            - boundary_rows(truth[:, columns], boundaries)
        )
        boundary_mae[np.arange(1, boundaries + 1) % boundaries] = means.plain(error, axis=1)
    return {
        "class": np.arange(num_classes),
        "present": pixels > 0,
        "dice": dice,
        "iou": iou,
        "hd95": hd95,
        "boundary_mae": boundary_mae,
        "pixels": pixels,
    }


def overlap(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU (..., C) of confusion matrices (..., C, C), rows truth, columns prediction.

    NaN where a class is on neither side.
    """
    both = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    total = counts.sum(-1) + counts.sum(-2)
    absent = total == 0
    total = np.where(absent, 1, total)
    dice = np.where(absent, np.nan, 2 * both / total)
    iou = np.where(absent, np.nan, both / np.maximum(total - both, 1))
    return dice, iou


def hausdorff95(prediction: np.ndarray, truth: np.ndarray) -> float:
    """95 % Hausdorff distance in pixels between the edges of two non-empty masks (H, W).

    The larger of the two 95th percentiles of the distances from each edge pixel of one mask to
    the nearest edge pixel of the other. An edge pixel is in the mask and has one of its four
    neighbours outside the mask or the image. Same values as MONAI's
    `compute_hausdorff_distance(percentile=95)`, several times faster.
    """
    from scipy.spatial import KDTree

    edges = [np.argwhere(_edge(mask)) for mask in (prediction, truth)]
    distances = (
        KDTree(there, leafsize=32).query(here)[0] for here, there in (edges, reversed(edges))
    )
    return float(max(np.percentile(one_way, 95) for one_way in distances))


def boundary_rows(labels: np.ndarray, boundaries: int) -> np.ndarray:
    """Row of each boundary in each column of a label image (H, W): (boundaries, W), from the top.

    The classes 1..boundaries-1 are the layers. Boundary b, above layer b, is the first row whose
    class is layer b or a later one; the last boundary is the row after the last layer pixel.
    Anything else (background, fluid) is looked through: fluid lies within the retina and moves no
    boundary but its own edge. NaN in columns without such a pixel.
    """
    layers = boundaries - 1
    depth = np.where(labels <= layers, labels, 0)
    rows = np.full((boundaries, labels.shape[1]), np.nan)
    for boundary in range(1, boundaries):
        reached = depth >= boundary
        rows[boundary - 1] = np.where(reached.any(0), reached.argmax(0), np.nan)
    inside = depth > 0
    rows[-1] = np.where(inside.any(0), len(labels) - inside[::-1].argmax(0), np.nan)
    return rows


def _edge(mask: np.ndarray) -> np.ndarray:
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~inner
