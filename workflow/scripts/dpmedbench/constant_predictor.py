"""What a network must beat: the commonest class of the training set, answered everywhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dpmedbench.datasets.base import IGNORE
from dpmedbench.errors import UserError


def most_frequent_class(targets: np.ndarray | Iterable[np.ndarray]) -> int:
    """The class with most graded pixels in all `targets` (uint8), the lowest one of equals.

    `targets` may be one array or arrays read one after another. UserError where no pixel is graded.
    """
    arrays = [targets] if isinstance(targets, np.ndarray) else targets
    counts = sum(np.bincount(np.ravel(array), minlength=256) for array in arrays)
    if not np.any(np.delete(counts, IGNORE)):
        raise UserError(
            "training set: found no graded pixel, expected at least one; check the masks"
        )
    return int(np.delete(counts, IGNORE).argmax())
