"""The HDF5 file between the raw scans and everything after it.

Datasets, a row (and a chunk) per record: `images` (N, H, W) or (N, H, W, 3) uint8, `masks`
(N, H, W) or `labels` (N,) uint8, `patient` and `source` UTF-8 strings. Attributes: `dataset`,
`title`, `task`, `classes` (JSON list), `boundaries`, `ignore_index`, `digest` (SHA-256 over
images, targets and ids in order), `provenance` (JSON).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpmedbench import resize
from dpmedbench.console import track
from dpmedbench.datasets.base import IGNORE, DatasetSpec, Record
from dpmedbench.errors import UserError
from dpmedbench.files import replacing

TARGETS = {"segmentation": "masks", "classification": "labels"}
ROWS_AT_ONCE = 64  # how many rows the file grows by


def write(
    path: Path,
    records: Iterable[Record],
    spec: DatasetSpec,
    image_size: tuple[int, int],
    provenance: Mapping[str, object],
    total: int | None = None,
) -> None:
    """Write `records`, resized to `image_size` (H, W), one after the other.

    One record is in memory at a time, beside the ids. To `provenance` are added `records`,
    `patients`, `image_size`, `counts` (the records' counts, summed) and `class_counts` (pixels,
    or images, of each class as stored; "not graded" for IGNORE). `total` is for the progress.
    The file is whole or absent. UserError where there is no record, a source comes twice, or a
    record does not fit `spec`.
    """
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        writer = _Writer(file, spec, tuple(image_size))
        for record in track(records, f"{spec.title}: writing {Path(path).name}", total):
            writer.add(record)
        writer.finish(provenance)


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
    provenance: dict
    images: object
    targets: object

    def read(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, H, W[, 3]) and targets (n, H, W) or (n,), uint8, in the order asked for."""
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_records:
            raise IndexError(f"records {indices.min()}..{indices.max()} of {self.num_records}")
        images = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
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
            f"{path}: found {what}, expected a prepared dataset; make it again."
        ) from error
    with file:
        try:
            store = _describe(file)
        except (KeyError, ValueError, OSError) as error:
            raise UserError(
                f"{path}: found an HDF5 file that is no dataset of this pipeline ({error}), "
                "expected images, targets, ids and attributes; make it again."
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
        provenance=json.loads(attributes["provenance"]),
        images=images,
        targets=file[TARGETS[attributes["task"]]],
    )


class _Writer:
    def __init__(self, file, spec: DatasetSpec, size: tuple[int, int]) -> None:
        import h5py

        self.file, self.spec, self.size = file, spec, size
        self.count = 0
        self.seen: set[str] = set()
        self.patients: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.class_counts = np.zeros(256, np.int64)
        self.digest = hashlib.sha256()
        image = (*size, 3) if spec.channels == 3 else size
        target = size if spec.task == "segmentation" else ()
        packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        text = h5py.string_dtype("utf-8")
        self.columns = {
            "images": self._column("images", image, np.uint8, **packed),
            "target": self._column(TARGETS[spec.task], target, np.uint8, **packed),
            "patient": self._column("patient", (), text),
            "source": self._column("source", (), text),
        }

    def _column(self, name: str, shape: tuple[int, ...], dtype, **options):
        chunk = (1, *shape) if shape else (ROWS_AT_ONCE,)
        return self.file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk, **options
        )

    def add(self, record: Record) -> None:
        self._check(record)
        image = resize.image(record.image, self.size)
        if self.spec.task == "segmentation":
            target = resize.mask(record.target, self.size)
        else:
            target = np.uint8(record.target)
        if self.count % ROWS_AT_ONCE == 0:
            self._resize(self.count + ROWS_AT_ONCE)
        row = {
            "images": image,
            "target": target,
            "patient": record.patient,
            "source": record.source,
        }
        for name, value in row.items():
            self.columns[name][self.count] = value
            raw = value.encode() + b"\0" if isinstance(value, str) else value.tobytes()
            self.digest.update(raw)
        self.count += 1
        self.seen.add(record.source)
        self.patients.add(record.patient)
        self.counts.update(record.counts)
        self.class_counts += np.bincount(np.ravel(target), minlength=256)

    def finish(self, provenance: Mapping[str, object]) -> None:
        spec = self.spec
        if not self.count:
            raise UserError(
                f"{spec.title}: found no record in the raw data, expected at least one."
            )
        self._resize(self.count)
        named = {name: int(self.class_counts[c]) for c, name in enumerate(spec.classes)}
        if spec.task == "segmentation":
            named["not graded"] = int(self.class_counts[IGNORE])
        found = {
            "records": self.count,
            "patients": len(self.patients),
            "image_size": list(self.size),
            "counts": dict(self.counts),
            "class_counts": named,
        }
        self.digest.update(repr((self.columns["images"].shape, spec.task)).encode())
        self.file.attrs.update(
            dataset=spec.name,
            title=spec.title,
            task=spec.task,
            classes=json.dumps(spec.classes),
            boundaries=spec.boundaries,
            ignore_index=IGNORE,
            digest=self.digest.hexdigest(),
            provenance=json.dumps({**provenance, **found}),
        )

    def _resize(self, rows: int) -> None:
        for column in self.columns.values():
            column.resize(rows, axis=0)

    def _check(self, record: Record) -> None:
        image, target, classes = record.image, record.target, len(self.spec.classes)
        channels = image.shape[2] if image.ndim == 3 else 1
        problem = None
        if record.source in self.seen:
            problem = "the same source twice, expected every source once"
        elif image.dtype != np.uint8 or channels != self.spec.channels:
            problem = (
                f"an image of type {image.dtype} with {channels} channels, expected uint8 with "
                f"{self.spec.channels}"
            )
        elif self.spec.task == "segmentation":
            if target.dtype != np.uint8 or target.shape != image.shape[:2]:
                problem = (
                    f"a mask of type {target.dtype} and shape {target.shape}, expected uint8 of "
                    f"shape {image.shape[:2]}"
                )
            elif (wrong := target[(target >= classes) & (target != IGNORE)]).size:
                problem = f"mask value {wrong[0]}, expected 0 to {classes - 1} or {IGNORE}"
        elif not 0 <= target < classes:
            problem = f"label {target}, expected 0 to {classes - 1}"
        if problem:
            raise UserError(f"{record.source}: found {problem}; correct the raw data.")
