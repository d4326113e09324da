"""Means of what is not NaN."""

from __future__ import annotations

import numpy as np


def plain(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean over an axis, or over all; NaN, without a warning, where nothing is."""
    number = (~np.isnan(values)).sum(axis)
    return np.where(number > 0, np.nansum(values, axis) / np.maximum(number, 1), np.nan)


def weighted(axes: str, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean by weights; NaN where no weight is on a value.

    `axes` names the axes of values, weights and mean as `np.einsum` does: "rp...,bp->br..." is
    over the patients p of runs r, by weights of each of b tries.
    """
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # 0 times an infinite loss
        total, amount = (
            np.einsum(axes, part, weights, optimize=True)
            for part in (np.where(there, values, 0), there.astype(float))
        )
    return np.where(amount > 0, total / np.where(amount > 0, amount, 1), np.nan)
