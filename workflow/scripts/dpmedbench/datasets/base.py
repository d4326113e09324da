"""What every dataset hands over: records, and a description of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dpmedbench.errors import UserError

IGNORE = 255
"""Mask value of a pixel that nobody graded: no loss, no score."""

UNREADABLE = ("stop", "leave_out")
"""Values of the option `unreadable`; the store acts on it, a loader that takes it only says so."""


def phantom_test_patients(patients: int) -> int:
    """How many of a phantom's patients are its official test set, where the dataset has one."""
    return max(1, patients // 4)


class Unreadable(UserError):
    """One raw file that cannot be read, named; the others may be whole."""


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
    `options` names the options of the configuration that the loader takes, each with the values
    allowed, the default first (empty: any value, by default None).
    The nominal numbers are those of the official data: `nominal_test_patients` of the patients
    are an official test set.
    """

    name: str
    title: str
    task: Literal["segmentation", "classification"]
    classes: tuple[str, ...]
    channels: int
    boundaries: int
    nominal_patients: int
    nominal_records_per_patient: float
    download: Download | None
    options: Mapping[str, tuple] = field(default_factory=dict)
    nominal_test_patients: int = 0

    def choose(self, values: Mapping[str, object]) -> dict[str, object]:
        """Every option of the loader with its value in `values`, the default for None or nothing.

        ValueError for a value that is not allowed, and for another loader's option that is set.
        """
        for name, value in values.items():
            if value is None:
                continue
            if name not in self.options:
                takes = ", ".join(self.options) or "no such option"
                raise ValueError(
                    f"{name} is {value!r}, but loader {self.name} takes {takes}; leave it out"
                )
            allowed = self.options[name]
            if allowed and value not in allowed:
                raise ValueError(
                    f"{name} is {value!r}, allowed for loader {self.name} are {allowed}"
                )
        given = {name: values.get(name) for name in self.options}
        return {
            name: next(iter(self.options[name]), None) if value is None else value
            for name, value in given.items()
        }


@dataclass(frozen=True)
class Record:
    """One example as the raw data hold it, before any resizing.

    `image` is uint8, (H, W) or (H, W, 3); `target` a uint8 (H, W) mask of class numbers and
    IGNORE, or the int label of the image. Either array may be a call without arguments that
    makes it: the store makes them on several threads at once and keeps the order, so that a
    loader may hand over all its records at no cost and leave the decoding to others. Such a call
    shares nothing with others that is not safe to share, and raises Unreadable for a broken file.

    `patient` is the group that never crosses a split. `source` is unique in its dataset. `counts`
    says how often something noteworthy was met while reading; the store sums it into its
    provenance. `split` is the official split: train, val (validation), test, or None.
    """

    image: np.ndarray | Callable[[], np.ndarray]
    target: np.ndarray | int | Callable[[], np.ndarray]
    patient: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    split: Literal["train", "val", "test"] | None = None
