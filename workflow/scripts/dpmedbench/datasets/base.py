"""What every dataset hands over: records, and a description of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

IGNORE = 255
"""Mask value of a pixel that nobody graded: no loss, no score."""


@dataclass(frozen=True)
class Download:
    """Where the raw data lie: `size` in bytes and `sha256` are None where nobody published them."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """What is true of a dataset before anything of it is read.

    `classes` are named in the order of their numbers, class 0 first. `boundaries` is the number
    of layer boundaries, boundary c lying between classes c-1 and c (0: no layers).
    """

    name: str
    title: str
    task: Literal["segmentation", "classification"]
    classes: tuple[str, ...]
    channels: int
    boundaries: int
    nominal_patients: int
    nominal_records_per_patient: int
    download: Download | None


@dataclass(frozen=True)
class Record:
    """One example as the raw data hold it, before any resizing.

    `image` is uint8, (H, W) or (H, W, 3); `target` a uint8 (H, W) mask of class numbers and
    IGNORE, or the int label of the image. `source` is unique in its dataset. `counts` says how
    often something noteworthy was met while reading; the store sums it into its provenance.
    """

    image: np.ndarray
    target: np.ndarray | int
    patient: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
