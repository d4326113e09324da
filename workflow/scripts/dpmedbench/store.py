"""The HDF5 file between the raw scans and everything after it.

Datasets, a row (and a chunk) per record: `images` (N, H, W) or (N, H, W, 3) uint8, `masks`
(N, H, W) or `labels` (N,) uint8, `patient`, `source` and `split` (official: train, val, test or
empty) UTF-8 strings. Attributes: `dataset`, `title`, `task`, `classes` (JSON list), `boundaries`,
`ignore_index`, `digest` (SHA-256 over the SHA-256 of each record's image, target and ids, in
order), `provenance` (JSON).

Images are stored as they are: gzip would take a quarter off them and three times the time that
decoding takes. Masks are compressed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpmedbench.errors import UserError

TARGETS = {"segmentation": "masks", "classification": "labels"}


@dataclass(frozen=True)
class Store:
    """An open store; made by `open_store`."""

    name: str
    title: str
    task: str
    classes: tuple[str, ...]
    boundaries: int
    num_records: int
    image_size: tuple[int, int]
    channels: int
    digest: str
    patients: np.ndarray
    sources: np.ndarray
    official: np.ndarray
    provenance: dict
    images: object
    targets: object

    def read(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W[, 3]) and targets (n, H, W) or (n,), uint8, in the order asked for.

        Images of a perturbed store (`perturbation`) are int16.
        """
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_records:
            raise IndexError(f"records {indices.min()}..{indices.max()} of {self.num_records}")
        images = np.empty((len(indices), *self.images.shape[1:]), self.images.dtype)
        targets = np.empty((len(indices), *self.targets.shape[1:]), np.uint8)
        for row, index in enumerate(indices):
            images[row] = self.images[index]
            targets[row] = self.targets[index]
        return images, targets


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a store for reading; UserError where the file is missing, cut short or another."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        what = (
            "no file" if isinstance(error, FileNotFoundError) else f"no whole HDF5 file ({error})"
        )
        raise UserError(
            f"{path}: found {what}, expected a prepared dataset; delete it and run again."
        ) from error
    with file:
        try:
            store = _describe(file)
        except (KeyError, ValueError, OSError) as error:
            raise UserError(
                f"{path}: found an HDF5 file that is no dataset of this pipeline ({error}), "
                "expected images, targets, ids and attributes; delete it and run again."
            ) from error
        yield store


def _describe(file) -> Store:
    attributes = file.attrs
    images = file["images"]
    return Store(
        name=attributes["dataset"],
        title=attributes["title"],
        task=attributes["task"],
        classes=tuple(json.loads(attributes["classes"])),
        boundaries=int(attributes["boundaries"]),
        num_records=len(images),
        image_size=images.shape[1:3],
        channels=1 if images.ndim == 3 else images.shape[3],
        digest=attributes["digest"],
        patients=file["patient"].asstr()[:].astype(str),
        sources=file["source"].asstr()[:].astype(str),
        official=file["split"].asstr()[:].astype(str),
        provenance=json.loads(attributes["provenance"]),
        images=images,
        targets=file[TARGETS[attributes["task"]]],
    )
