"""Write the HDF5 file that `store` describes and opens."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dpmedbench import resize
from dpmedbench.console import Progress, say
from dpmedbench.datasets.base import IGNORE, DatasetSpec, Record, Unreadable
from dpmedbench.errors import UserError
from dpmedbench.files import replacing
from dpmedbench.threads import in_order

BYTES_AT_ONCE = 1 << 20  # of images that are written together


def write(
    path: Path,
    records: Iterable[Record],
    spec: DatasetSpec,
    image_size: tuple[int, int],
    provenance: Mapping[str, object],
    *,
    threads: int = 1,
    unreadable: str = "stop",
) -> None:
    """Write `records`, resized to `image_size` (H, W), in their order.

    They are decoded and resized on `threads` threads; a few records are in memory at a time,
    beside the ids. `unreadable` is what to do with a record that raises Unreadable: "stop", or
    "leave_out", which says so and counts it as `unreadable`.
    To `provenance` are added `records`, `patients`, `image_size`, `counts` (the records' counts,
    summed) and `class_counts` (pixels, or images, of each class as stored; "not graded" for
    IGNORE). The file is whole or absent. UserError where there is no record, a source comes
    twice, or a record does not fit `spec`.
    """
    import h5py

    size = tuple(image_size)

    def prepare(record: Record) -> tuple[Record, bytes] | Unreadable:
        try:
            made = _resized(record, spec, size)
            return made, _digest(made)
        except Unreadable as error:
            if unreadable == "stop":
                raise
            return error

    title = f"{spec.title}: writing {Path(path).name}"
    total = operator.length_hint(records) or None
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        writer = _Writer(file, spec, size)
        made = in_order(prepare, writer.once(records), threads)
        with Progress(title, total) as progress:
            while batch := list(itertools.islice(made, writer.rows_at_once)):
                writer.add(batch)
                progress.update(progress.done + len(batch))
        writer.finish(provenance)


def _resized(record: Record, spec: DatasetSpec, size: tuple[int, int]) -> Record:
    """The record with its arrays made, checked against `spec` and resized to `size`."""
    image = record.image() if callable(record.image) else record.image
    target = record.target() if callable(record.target) else record.target
    _check(record.source, image, target, spec)
    image = np.ascontiguousarray(resize.image(image, size))
    if spec.task == "segmentation":
        target = np.ascontiguousarray(resize.mask(target, size))
    else:
        target = np.uint8(target)
    return replace(record, image=image, target=target)


def _digest(record: Record) -> bytes:
    """SHA-256 over a record's arrays and ids; taken beside the decoding, on its threads."""
    digest = hashlib.sha256(record.image)
    digest.update(record.target)
    digest.update("\0".join(_ids(record)).encode())
    return digest.digest()


def _ids(record: Record) -> tuple[str, str, str]:
    return record.patient, record.source, record.split or ""


def _check(source: str, image: np.ndarray, target: np.ndarray | int, spec: DatasetSpec) -> None:
    channels, classes = image.shape[2] if image.ndim == 3 else 1, len(spec.classes)
    problem = None
    if image.dtype != np.uint8 or channels != spec.channels:
        problem = (
            f"an image of type {image.dtype} with {channels} channels, expected uint8 with "
            f"{spec.channels}"
        )
    elif spec.task == "segmentation":
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
        raise UserError(f"{source}: found {problem}; correct the raw data.")


class _Writer:
    """Rows of the file, written some at a time; ids and labels are held back to the end."""

    def __init__(self, file, spec: DatasetSpec, size: tuple[int, int]) -> None:
        self.file, self.spec, self.size = file, spec, size
        self.seen: set[str] = set()
        self.ids: list[tuple[str, str, str]] = []
        self.labels: list[int] = []
        self.counts: Counter[str] = Counter()
        self.class_counts = np.zeros(256, np.int64)
        self.digest = hashlib.sha256()
        self.columns = {"image": self._rows("images", (*size, 3) if spec.channels == 3 else size)}
        if spec.task == "segmentation":
            self.columns["target"] = self._rows(
                "masks", size, compression="gzip", compression_opts=1
            )
        self.rows_at_once = max(1, BYTES_AT_ONCE // math.prod(self.columns["image"].chunks))

    def once(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records; UserError at one whose source came before."""
        for record in records:
            if record.source in self.seen:
                raise UserError(
                    f"{record.source}: found the same source twice, expected every source once; "
                    "correct the raw data."
                )
            self.seen.add(record.source)
            yield record

    def add(self, batch: Iterable[tuple[Record, bytes] | Unreadable]) -> None:
        """Append records whose arrays are made and resized, with their digests."""
        records = []
        for made in batch:
            if isinstance(made, Unreadable):
                say(f"left out: {made}")
                self.counts["unreadable"] += 1
            else:
                records.append(made[0])
                self.digest.update(made[1])
        start = len(self.ids)
        for column in self.columns.values():
            column.resize(start + len(records), axis=0)
        if "target" in self.columns and records:
            self.columns["target"][start:] = np.stack([record.target for record in records])
        images = self.columns["image"]
        corner = (0,) * (images.ndim - 1)
        for row, record in enumerate(records, start):
            # A row is a chunk and not compressed: its bytes go straight to the file.
            images.id.write_direct_chunk((row, *corner), record.image)
            self.ids.append(_ids(record))
            self.counts.update(record.counts)
            self.class_counts += np.bincount(np.ravel(record.target), minlength=256)
            if "target" not in self.columns:
                self.labels.append(int(record.target))

    def finish(self, provenance: Mapping[str, object]) -> None:
        """Write the ids, the labels and the attributes."""
        import h5py

        spec = self.spec
        if not self.ids:
            raise UserError(
                f"{spec.title}: found no record in the raw data, expected at least one."
            )
        ids = dict(zip(("patient", "source", "split"), zip(*self.ids, strict=True), strict=True))
        for name, column in ids.items():
            self.file.create_dataset(name, data=column, dtype=h5py.string_dtype("utf-8"))
        named = {name: int(self.class_counts[c]) for c, name in enumerate(spec.classes)}
        if "target" in self.columns:
            named["not graded"] = int(self.class_counts[IGNORE])
        else:
            self.file.create_dataset("labels", data=self.labels, dtype=np.uint8)
        found = {
            "records": len(self.ids),
            "patients": len(set(ids["patient"])),
            "image_size": list(self.size),
            "counts": dict(self.counts),
            "class_counts": named,
        }
        self.digest.update(repr((self.columns["image"].shape, spec.task)).encode())
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

    def _rows(self, name: str, shape: tuple[int, ...], **options):
        return self.file.create_dataset(
            name, (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape), **options
        )
