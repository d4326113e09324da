"""Test scores, a patient counting once however many images there are of it.

The images of a patient are averaged first: an image weighs 1 / (images of its patient and class).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpmedbench import means
from dpmedbench.classification_metrics import ECE_BINS

RUN = ["fold", "seed"]
SEGMENTED = ("dice", "iou", "hd95", "boundary_mae")
OVERLAPS = 2  # the first of them, which a class has that is in a prediction alone
BY_PATIENT = "rp...,bp->br..."  # `means.weighted` of values (R, P, ...) with weights (B, P)
AT_ONCE = 2**21  # weights of images that an area is made of, which bounds its memory
DISTANCES = {"hd95": "missed_hd95", "boundary_mae": "missed_boundary_mae"}


def independent(runs: pd.DataFrame) -> pd.Series:
    """The unit of chance that each run belongs to: its fold, where there are several, since the
    runs of a fold share its training images and its patients; else its seed."""
    return runs["fold" if len(set(runs["fold"])) > 1 else "seed"]


@dataclass(frozen=True)
class Evaluation:
    """What R runs of a setting scored on P patients.

    Attributes:
        runs: (fold, seed) of each run.
        patients: their names.
        images: how many different images there are of them.
        scores: of weights (B, P), how much each patient counts in each of B tries, to
            {metric: values (B, R)}, NaN where no patient defines one.
        parts: (R, P), what a patient adds to the primary metric ("dice", "balanced_accuracy"),
            which is their mean over the patients of a run. NaN where not tested.
        primary: (R, P), the same mean, but with the spread of the metric: the part of a patient of
            a rare class is large because the class is rare, which no other patients would change.
        missed: of a segmentation, {distance: (how often, of how many)}: classes in the truth of an
            image that have no distance, mostly because the prediction is without them.
    """

    runs: pd.MultiIndex
    patients: pd.Index
    images: int
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]
    parts: np.ndarray
    primary: np.ndarray
    missed: dict[str, tuple[int, int]]


def segmentation(frame: pd.DataFrame) -> Evaluation:
    """Evaluation of a table with a row a run, patient and class, as `results.Results.segmented`.

    Each metric is the mean over classes of the means over patients: `dice` and `hd95` without
    class 0, `dice_with_background` and `miou` with it; `boundary_mae` over the boundaries. A class
    that is in the truth of no patient of a run is none of that run's, whatever was predicted. None
    is defined, for any run, where no patient with a weight has a class that others of a run have.
    """
    run, runs = pd.MultiIndex.from_frame(frame[RUN]).factorize()
    patient, patients = pd.factorize(frame["patient"])
    number = frame["class"].to_numpy(int)
    classes = number.max() + 1
    values = np.full((len(runs), len(patients), classes, len(SEGMENTED)), np.nan)
    values[run, patient, number] = frame[list(SEGMENTED)]
    present = np.bincount(run * classes + number, frame["present"], len(runs) * classes)
    absent = present.reshape(len(runs), 1, classes, 1) == 0
    np.copyto(values[..., :OVERLAPS], np.nan, where=absent)
    foreground = range(min(classes - 1, 1), classes)
    known = ~np.isnan(values).all(1)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        of_class = means.weighted(BY_PATIENT, values, weights)

        def over(chosen: range, metric: str) -> np.ndarray:
            at = SEGMENTED.index(metric)
            return _balanced(of_class[..., chosen, at], known[..., chosen, at])

        named = {
            "dice": over(foreground, "dice"),
            "dice_with_background": over(range(classes), "dice"),
            "miou": over(range(classes), "iou"),
            "hd95": over(foreground, "hd95"),
            "boundary_mae": over(range(classes), "boundary_mae"),
        }
        return named | {f"dice_{c}": of_class[..., c, 0] for c in range(classes)}

    images = int(frame.groupby("patient")["images"].max().sum())
    primary = _primary(values[:, :, foreground, 0])
    return Evaluation(runs, patients, images, scores, *primary, _missed(frame))


def classification(frame: pd.DataFrame) -> Evaluation:
    """Evaluation of a table of predictions: a row a run and image, as in predictions.parquet.

    The metrics are those of `classification_metrics.scores`, with weights; none is defined where
    an answer of the run is not finite.
    """
    frame = frame.sort_values([*RUN, "patient"], kind="stable")
    run, runs = pd.MultiIndex.from_frame(frame[RUN]).factorize()
    patient, patients = pd.factorize(frame["patient"])
    label, predicted = frame["label"].to_numpy(), frame["predicted"].to_numpy()
    columns = [name for name in frame if name.startswith("probability_")]
    # where no answer is finite no column says of how many classes it was
    number = max(frame[columns].notna().any().sum(), 1 + label.max(), 1 + predicted.max())
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
    several = known.sum(-1) > 1
    sure = np.nan_to_num(probability).max(1).astype(np.float32)
    edges = np.linspace(0, 1, ECE_BINS + 1, dtype=np.float32)[1:-1]
    gap = of_patients(np.searchsorted(edges, sure), ECE_BINS, sure - (predicted == label))

    def area(r: int, weights: np.ndarray) -> np.ndarray:
        here = np.flatnonzero(run == r)
        parts = np.array_split(weights, 1 + len(weights) * len(here) // AT_ONCE)
        each = (part[:, patient[here]] / images[cell[here]] for part in parts)
        return np.concatenate([_area(part, label[here], probability[here]) for part in each])

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        table = means.weighted(BY_PATIENT, answers, weights)
        of_class = means.weighted(BY_PATIENT, right, weights)
        areas = np.stack([area(r, weights) for r in range(len(runs))], -1)
        return {
            "accuracy": np.trace(table, axis1=-2, axis2=-1),
            "balanced_accuracy": _balanced(of_class, known),
            "auroc": _defined(areas, of_class, several),
            "kappa": _defined(_kappa(table), of_class, several),
            "ece": np.abs(means.weighted(BY_PATIENT, gap, weights)).sum(-1),
        }

    different = len(frame[["patient", "record"]].drop_duplicates())
    return Evaluation(runs, patients, different, scores, *_primary(right), {})


def _balanced(of_class: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Means over the classes of a run, `known` (R, C), of (B, R, C); NaN where one is missing."""
    missing = (np.isnan(of_class) & known).any(-1)
    return _defined(np.where(missing, np.nan, means.plain(of_class, -1)), of_class, known.any(-1))


def _defined(values: np.ndarray, of_class: np.ndarray, once: np.ndarray) -> np.ndarray:
    """`values` (B, R), NaN for all runs where one that has patients left has lost its own: a mean
    over the others would take the luck of that run for the patient's.

    `of_class` (B, R, C) has no value where no patient is left; `once` (R,) is whether a run has a
    value of all patients.
    """
    lost = np.isnan(values) & once & ~np.isnan(of_class).all(-1)
    return np.where(lost.any(-1, keepdims=True), np.nan, values)


def _primary(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`parts` and `primary` (`Evaluation`) of the mean over classes of the means over patients.

    The second are values of the influence function of that mean (Hampel 1974), around it.

    Args:
        values: (R, P, C), NaN where a patient does not define the score of a class.
    """
    of_class = means.plain(values, 1)
    whole = means.plain(of_class, -1)[:, None]
    return _parts(values), whole + _parts(values - of_class[:, None])


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


def _missed(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """`Evaluation.missed`; boundaries are those of the classes up to the last that has one."""
    found = {}
    for distance, missed in DISTANCES.items():
        among = frame["class"] > 0
        if distance == "boundary_mae":
            among &= frame["class"] <= frame.loc[frame[distance].notna(), "class"].max()
        found[distance] = tuple(int(n) for n in frame.loc[among, [missed, "present"]].sum())
    return found


def _area(weights: np.ndarray, label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The mean AUROC over classes of the images of one run, by weights (B, n) of them: (B,).

    An area is a mean over pairs of an image of the class and one of another, which is counted
    along the sorted images, ties half.
    """
    found = np.unique(label)
    if len(found) < 2 or not np.isfinite(probability).all():
        return np.full(len(weights), np.nan)
    areas = []
    twins = probability.shape[1] == 2  # the area of one class is that of the other
    for c in found[twins:]:
        order = np.argsort(probability[:, c])
        each = weights[:, order]
        inside = each * (label[order] == c)
        outside = each - inside
        ties = np.unique(probability[order, c], return_index=True)[1]
        if len(ties) < len(label):
            inside, outside = (np.add.reduceat(s, ties, axis=1) for s in (inside, outside))
        won = (inside * (outside.cumsum(1) - outside / 2)).sum(1)
        pairs = inside.sum(1) * outside.sum(1)
        areas.append(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan))
    return np.mean(areas, axis=0)
