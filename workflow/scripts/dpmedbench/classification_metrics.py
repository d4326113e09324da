"""Scores of a classification against its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

METRICS = ("accuracy", "balanced_accuracy", "auroc", "kappa", "ece")
ECE_BINS = 15


class Score(NamedTuple):
    """A value, NaN where it is not defined, and what a reader must know of it (None: nothing)."""

    value: float
    note: str | None = None


class ClassificationScores:
    """Scores over many images, gathered on their device and read once at the end."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._probabilities: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add images: logits (B, C) and their labels (B,)."""
        # In float64, so that sure answers of different sureness do not become ties.
        self._probabilities.append(logits.detach().double().softmax(1))
        self._labels.append(labels)

    def compute(self) -> dict[str, float]:
        """The `METRICS` as of `scores`, all NaN where no image was added."""
        if not self._labels:
            return dict.fromkeys(METRICS, np.nan)
        import torch

        gathered = (torch.cat(parts).cpu().numpy() for parts in (self._probabilities, self._labels))
        return {name: score.value for name, score in scores(*gathered).items()}


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Score]:
    """The `METRICS` of answers: probabilities (n, C) and labels (n,) of 0..C-1, n >= 1.

    An answer is the most probable class, the lowest of equals. `accuracy` is the share of right
    ones and `balanced_accuracy` the mean of the shares of each class, over those that occur, both
    in [0, 1]. `auroc` in [0, 1] is the mean over the classes that occur of the probability that an
    image of the class has more of its probability than one of another class, ties counting half.
    `kappa` in [-1, 1] is Cohen's, weighted by the squared distance of the classes (Cohen 1968);
    0 for answers that do not depend on the image. `ece` in [0, 1] is the expected calibration error
    of the answer in 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599).

    `auroc` and `kappa` are NaN where one class occurs, and all are where a probability is not
    finite; the note says so, and which classes an `auroc` is without.
    """
    from sklearn.metrics import cohen_kappa_score, recall_score, roc_auc_score

    if not np.isfinite(probabilities).all():
        return dict.fromkeys(METRICS, Score(np.nan, "the network's answers are not finite"))
    answers = probabilities.argmax(1)
    found = np.unique(labels)
    shares = {
        "accuracy": Score(float((answers == labels).mean())),
        "balanced_accuracy": Score(
            float(recall_score(labels, answers, labels=found, average="macro"))
        ),
        "ece": Score(_calibration_error(probabilities.max(1), answers == labels)),
    }
    if len(found) == 1:
        undefined = Score(np.nan, f"every image is of class {found[0]}")
        return shares | {"auroc": undefined, "kappa": undefined}
    classes = np.arange(probabilities.shape[1])
    absent = ", ".join(map(str, np.setdiff1d(classes, found)))
    areas = [roc_auc_score(labels == c, probabilities[:, c]) for c in found]
    kappa = cohen_kappa_score(labels, answers, labels=classes, weights="quadratic")
    return shares | {
        "auroc": Score(float(np.mean(areas)), f"no image of class {absent}" if absent else None),
        "kappa": Score(float(kappa)),
    }


def confusion(answers: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of images (C, C) of each class, rows, that were given each answer, columns."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, answers, labels=np.arange(num_classes))


def _calibration_error(sureness: np.ndarray, right: np.ndarray) -> float:
    """Mean over the bins of |mean sureness - share of right answers|, weighted by their images."""
    import torch

    from dpmedbench.monai_parts import calibration_binning

    pair = (torch.from_numpy(part.astype(np.float32))[None, None] for part in (sureness, right))
    sure, share, count = calibration_binning(*pair, num_bins=ECE_BINS)
    return float(((sure - share).abs() * count).nansum() / len(right))
