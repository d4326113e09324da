"""The ways of dealing patients out to training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dpmedbench.console import say
from dpmedbench.errors import UserError

SPLITS = ("train", "val", "test")


def plan(
    patients: np.ndarray,
    official: Sequence[str],
    method: str,
    ratios: Sequence[float],
    lists: Mapping[str, Sequence[str]],
    folds: int,
    seed: int,
) -> list[dict[str, str]]:
    """The split of each patient that is used, for each fold; see `splits.make`."""
    unique = np.unique(patients)
    shuffled = np.random.default_rng(seed).permutation(unique)
    if method in ("ratio", "lists") and folds != 1:
        raise UserError(f"split folds: found {folds}, expected 1 with method {method}; use kfold.")
    if method == "ratio":
        return [_by_ratio(shuffled, ratios)]
    if method == "lists":
        return [_by_lists(unique, lists)]
    if method == "kfold":
        return _by_folds(shuffled, folds)
    if method == "official":
        return _by_official(shuffled, _homes(patients, official), ratios, folds)
    raise UserError(f"split method: found {method!r}, expected ratio, lists, kfold or official.")


def sizes(count: int, shares: Sequence[float]) -> list[int]:
    """Share `count` things out by largest remainder, at least one each.

    UserError unless the `shares` are above 0 and no more than `count`.
    """
    if min(shares) <= 0 or count < len(shares):
        raise UserError(
            f"split: found {count} patients to share out in {', '.join(f'{s:g}' for s in shares)}, "
            "expected shares above 0 and at least one patient each; change datasets.<name>.split."
        )
    exact = np.asarray(shares, dtype=float) * (count / sum(shares))
    whole = np.floor(exact + 1e-9).astype(int)
    for place in np.argsort(whole - exact, kind="stable")[: count - whole.sum()]:
        whole[place] += 1
    while whole.min() == 0:  # taken from the largest
        whole[whole.argmax()] -= 1
        whole[whole.argmin()] += 1
    return whole.tolist()


def _by_ratio(shuffled: np.ndarray, ratios: Sequence[float]) -> dict[str, str]:
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise UserError(
            f"split ratios: found {list(ratios)}, expected three numbers above 0 that sum to "
            "1; change datasets.<name>.split."
        )
    if len(shuffled) < 3:
        raise UserError(
            f"split: found {len(shuffled)} patients, expected one for each of 3 splits; add some."
        )
    return _dealt(shuffled, SPLITS, ratios)


def _dealt(shuffled: np.ndarray, names: Sequence[str], shares: Sequence[float]) -> dict[str, str]:
    dealt = np.repeat(names, sizes(len(shuffled), shares))
    return dict(zip(shuffled.tolist(), dealt.tolist(), strict=True))


def _homes(patients: Sequence[str], official: Sequence[str]) -> dict[str, str]:
    """The official split of each patient; UserError where one has two."""
    homes: dict[str, str] = {}
    for patient, split in zip(patients, official, strict=True):
        home = homes.setdefault(str(patient), str(split) or "train")
        if home != (split or "train"):
            raise UserError(
                f"split method official: found patient {str(patient)!r} in {home} and in "
                f"{split or 'train'} of the official split, expected one of them; correct the raw "
                "data or use another method."
            )
    return homes


def _by_official(
    shuffled: np.ndarray, homes: Mapping[str, str], ratios: Sequence[float], folds: int
) -> list[dict[str, str]]:
    if "test" not in homes.values():
        raise UserError(
            "split method official: found no official test set, expected one; use another method."
        )
    rest = np.array([patient for patient in shuffled.tolist() if homes[patient] != "test"])
    if len(rest) < max(2, folds):
        raise UserError(
            f"split method official: found {len(rest)} patients outside the official test set, "
            f"expected at least {max(2, folds)}; use another method."
        )
    if folds > 1:
        group = {patient: place % folds for place, patient in enumerate(rest.tolist())}
        others = [{p: "val" if g == fold else "train" for p, g in group.items()}
                  for fold in range(folds)]  # fmt: skip
    elif "val" not in homes.values():
        others = [_dealt(rest, SPLITS[:2], ratios[:2])]
    elif "train" in homes.values():
        others = [{}]
    else:
        raise UserError(
            "split method official: found no training set, expected one; use another method."
        )
    return [dict(homes) | other for other in others]


def _by_lists(unique: np.ndarray, lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split in SPLITS:
        if not lists.get(split):
            raise UserError(
                f"split lists.{split}: found no patient, expected at least one; change "
                "datasets.<name>.split."
            )
        for patient in lists[split]:
            if patient not in unique:
                raise UserError(
                    f"split lists.{split}: found {patient!r}, expected patients of the dataset: "
                    f"{', '.join(unique[:20])}{', ...' if len(unique) > 20 else ''}."
                )
            if split_of.setdefault(patient, split) != split:
                raise UserError(
                    f"split lists: found {patient!r} in {split_of[patient]} and in {split}, "
                    "expected every patient in one split."
                )
    if left_out := len(unique) - len(split_of):
        say(f"{left_out} of {len(unique)} patients are in no split list and are not used.")
    return split_of


def _by_folds(shuffled: np.ndarray, folds: int) -> list[dict[str, str]]:
    if not 3 <= folds <= len(shuffled):
        raise UserError(
            f"split folds: found {folds}, expected 3 to {len(shuffled)} (the number of patients); "
            "change datasets.<name>.split."
        )
    group = {patient: place % folds for place, patient in enumerate(shuffled.tolist())}
    names = {0: "test", 1: "val"}
    return [
        {patient: names.get((g - fold) % folds, "train") for patient, g in group.items()}
        for fold in range(folds)
    ]
