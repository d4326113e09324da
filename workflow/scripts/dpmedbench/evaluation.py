"""Test scores, a patient counting once however many images there are of it.

The images of a patient are averaged first: an image weighs 1 / (images of its patient and class).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpmedbench.classification_metrics import ECE_BINS

RUN = ["fold", "seed"]
SEGMENTED = ("dice", "iou", "hd95", "boundary_mae")


@dataclass(frozen=True)
class Evaluation:
    """What R runs of a setting scored on P patients.

    Attributes:
        runs: (fold, seed) of each run.
        patients: their names.
        images: how many different images there are of them.
        scores: of weights (B, P), how much each patient counts in each of B resamples, to
            {metric: values (B, R)}, NaN where no patient defines one.
        parts: (R, P), what a patient adds to the primary metric ("dice", "balanced_accuracy"),
            which is their mean over the patients of a run. NaN where not tested.
        primary: (R, P), the same mean, but with the spread of the metric: the part of a patient of
            a rare class is large because the class is rare, which no other patients would change.
    """

    runs: pd.MultiIndex
    patients: pd.Index
    images: int
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]
    parts: np.ndarray
    primary: np.ndarray


def segmentation(frame: pd.DataFrame) -> Evaluation:
    """Evaluation of a table with a row a run, patient and class: "images", means of `SEGMENTED`.

    Each metric is the mean over classes of the means over patients: `dice` and `hd95` without
    class 0, `dice_with_background` and `miou` with it; `boundary_mae` over the boundaries.
    """
    run, runs = pd.MultiIndex.from_frame(frame[RUN]).factorize()
    patient, patients = pd.factorize(frame["patient"])
    number = frame["class"].to_numpy(int)
    classes = number.max() + 1
    values = np.full((len(runs), len(patients), classes, len(SEGMENTED)), np.nan)
    values[run, patient, number] = frame[list(SEGMENTED)]
    present = range(min(classes - 1, 1), classes)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        dice, iou, hd95, boundary = np.moveaxis(_means(values, weights), -1, 0)
        named = {
            "dice": nanmean(dice[..., present]),
            "dice_with_background": nanmean(dice),
            "miou": nanmean(iou),
            "hd95": nanmean(hd95[..., present]),
            "boundary_mae": nanmean(boundary),
        }
        return named | {f"dice_{c}": dice[..., c] for c in range(classes)}

    images = int(frame.groupby("patient")["images"].max().sum())
    return Evaluation(runs, patients, images, scores, *_primary(values[:, :, present, 0]))


def classification(frame: pd.DataFrame) -> Evaluation:
    """Evaluation of a table of predictions: a row a run and image, as in predictions.parquet.

    The metrics are those of `classification_metrics.scores`, with weights; none is defined where
    an answer of the run is not finite.
    """
    frame = frame.sort_values([*RUN, "patient"], kind="stable")
    run, runs = pd.MultiIndex.from_frame(frame[RUN]).factorize()
    patient, patients = pd.factorize(frame["patient"])
    label, predicted = frame["label"].to_numpy(), frame["predicted"].to_numpy()
    number = 1 + max(label.max(), predicted.max())
    probability = frame[[f"probability_{c}" for c in range(number)]].to_numpy(float)
    cell = run * len(patients) + patient
    images = np.bincount(cell, minlength=len(runs) * len(patients))
    finite = np.bincount(run, ~np.isfinite(probability).all(1)) == 0
    tested = (images > 0) & np.repeat(finite, len(patients))

    def of_patients(codes: np.ndarray, size: int, amounts: np.ndarray) -> np.ndarray:
        """Mean over the images of a patient of the amounts of each code: (R, P, size)."""
        sums = np.bincount(cell * size + codes, amounts / images[cell], len(images) * size)
        table = np.where(tested[:, None], sums.reshape(-1, size), np.nan)
        return table.reshape(len(runs), len(patients), size)

    answers = of_patients(label * number + predicted, number**2, np.ones(len(frame)))
    answers = answers.reshape(*answers.shape[:2], number, number)
    with np.errstate(invalid="ignore"):
        right = np.diagonal(answers, axis1=-2, axis2=-1) / answers.sum(-1)
    known = ~np.isnan(right).all(1)
    sure = np.nan_to_num(probability).max(1).astype(np.float32)
    edges = np.linspace(0, 1, ECE_BINS + 1, dtype=np.float32)[1:-1]
    gap = of_patients(np.searchsorted(edges, sure), ECE_BINS, sure - (predicted == label))
    areas = [
        _areas(patient[run == r], label[run == r], probability[run == r]) for r in range(len(runs))
    ]

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        table = _means(answers, weights)
        return {
            "accuracy": np.trace(table, axis1=-2, axis2=-1),
            "balanced_accuracy": _balanced(_means(right, weights), known),
            "auroc": np.stack([area(weights) for area in areas], -1),
            "kappa": _kappa(table),
            "ece": np.abs(_means(gap, weights)).sum(-1),
        }

    different = len(frame[["patient", "record"]].drop_duplicates())
    return Evaluation(runs, patients, different, scores, *_primary(right))


def nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    number = there.sum(-1)
    total = np.where(there, values, 0).sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means over patients of values (R, P, ...) with weights (B, P): (B, R, ...)."""
    there = ~np.isnan(values)
    total = np.tensordot(weights, np.where(there, values, 0), (1, 1))
    amount = np.tensordot(weights, there.astype(float), (1, 1))
    return np.where(amount > 0, total / np.where(amount > 0, amount, 1), np.nan)


def _balanced(means: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Means over the classes of a run, `known` (R, C), of (B, R, C); NaN where one is missing."""
    missing = (np.isnan(means) & known).any(-1)
    return np.where(missing, np.nan, nanmean(means))


def _primary(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`parts` and `primary` (`Evaluation`) of the mean over classes of the means over patients.

    The second are values of the influence function of that mean (Hampel 1974), around it.

    Args:
        values: (R, P, C), NaN where a patient does not define the score of a class.
    """
    means = _means(values, np.ones((1, values.shape[1])))[0]
    whole = nanmean(means)[:, None]
    return _parts(values), whole + _parts(values - means[:, None])


def _parts(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    of_class = there.sum(1, keepdims=True)
    classes = (of_class > 0).sum(-1)
    seen = there.any(-1)
    parts = np.where(there, values / np.maximum(of_class, 1), 0).sum(-1)
    parts = parts * seen.sum(1, keepdims=True) / np.maximum(classes, 1)
    return np.where(seen, parts, np.nan)


def _kappa(table: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights of confusion matrices (..., C, C); NaN of one class."""
    classes = np.arange(table.shape[-1])
    penalty = (classes[:, None] - classes) ** 2
    chance = table.sum(-1)[..., :, None] * table.sum(-2)[..., None, :]
    expected = (penalty * chance).sum((-2, -1))
    observed = (penalty * table).sum((-2, -1))
    several = (table.sum(-1) > 0).sum(-1) > 1
    return np.where(several, 1 - observed / np.where(several, expected, 1), np.nan)


def _areas(
    patient: np.ndarray, label: np.ndarray, probability: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The mean AUROC over classes of one run, of weights (B, P) of its patients: (B,).

    An area is a mean over pairs of an image of the class and one of another: quadratic in the
    weights of the patients. The images must be sorted by patient.
    """
    found = np.unique(label)
    if len(found) < 2 or not np.isfinite(probability).all():
        return lambda weights: np.full(len(weights), np.nan)
    names, starts = np.unique(patient, return_index=True)
    share = 1 / np.bincount(patient)[patient]
    classes = []
    twins = probability.shape[1] == 2  # the area of one class is that of the other
    for c in found[twins:]:
        score, inside = probability[:, c], share * (label == c)
        wins = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        wins *= inside[:, None] * (share - inside)
        wins = np.add.reduceat(np.add.reduceat(wins, starts, axis=0), starts, axis=1)
        amounts = [np.add.reduceat(amount, starts) for amount in (inside, share - inside)]
        # float32 halves what takes most of the time of a summary
        classes.append((wins.astype(np.float32), *amounts))

    def area(weights: np.ndarray) -> np.ndarray:
        here, found = weights[:, names], []
        short = here.astype(np.float32)
        for wins, inside, outside in classes:
            pairs = (here @ inside) * (here @ outside)
            won = ((short @ wins) * short).sum(1, dtype=float)
            found.append(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan))
        return np.mean(found, axis=0)

    return area
