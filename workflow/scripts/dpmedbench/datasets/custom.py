"""A user's own images without code: a CSV file, the manifest, names them.

A row per image, under a line of column names; other columns are left alone:

    image     file, seen from the manifest's folder (or absolute): PNG, TIFF, JPEG, NPY, DICOM
    mask      file with a class number a pixel (task segmentation)
    label     name of the class (task classification)
    patient   whose image it is; a patient never crosses a split
    split     train, val, test or nothing (the column may be missing)
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dpmedbench import image_files
from dpmedbench.datasets.base import UNREADABLE, DatasetSpec, Record, phantom_test_patients
from dpmedbench.errors import UserError
from dpmedbench.files import replacing

MANIFEST = "manifest.csv"
SPLITS = ("", "train", "val", "test")
TARGET = {"segmentation": "mask", "classification": "label"}

SPEC = DatasetSpec(
    name="custom",
    title="Own data",
    task="segmentation",
    classes=(),
    channels=1,
    boundaries=0,
    nominal_patients=10,  # of a phantom
    nominal_records_per_patient=1,
    download=None,
    options={
        "task": ("segmentation", "classification"),
        "manifest": (),
        "classes": (),
        "mask_values": (),
        "channels": (1, 3),
        "white": (),
        "unreadable": UNREADABLE,
    },
    nominal_test_patients=2,
)


def describe(folder: Path, options: Mapping[str, object]) -> DatasetSpec:
    """What the manifest in `folder` and the `options` say of the data; UserError as for `read`."""
    manifest = _manifest(Path(folder), options)
    return replace(
        SPEC,
        title=manifest.path.parent.resolve().name,
        task=options["task"],
        classes=_classes(manifest, options),
        channels=options["channels"],
    )


def read(folder: Path, options: Mapping[str, object]) -> list[Record]:
    """The records of the manifest in `folder`, its files still to be read.

    The manifest is `options["manifest"]`, by default manifest.csv; `folder` may be the manifest
    itself. `options["classes"]` are the class names, needed for masks; `options["mask_values"]`
    the value of each class in a mask file; `options["white"]` the value that becomes white where
    an image has other than 8 bits. UserError, with the line, for a missing column, an empty cell,
    a missing file, an image named twice, an unknown label and an unknown split.
    """
    manifest = _manifest(Path(folder), options)
    classes = _classes(manifest, options)
    number = {name: place for place, name in enumerate(classes)}
    target = TARGET[options["task"]]
    seen: dict[Path, int] = {}
    records = []
    for line, row in manifest.rows:
        for column in ("image", "patient", target):
            if not row[column]:
                raise manifest.wrong(line, f"no {column}", "one in every row")
        if (split := row.get("split", "")) not in SPLITS:
            raise manifest.wrong(line, f"split {split!r}", "train, val, test or nothing")
        picture = manifest.file(line, row["image"])
        if (first := seen.setdefault(picture, line)) != line:
            raise manifest.wrong(
                line, f"image {row['image']!r} as in line {first}", "every image once"
            )
        if target == "mask":
            path = manifest.file(line, row["mask"])
            made = partial(image_files.mask, path, len(classes), options["mask_values"])
        elif row["label"] in number:
            made = number[row["label"]]
        else:
            raise manifest.wrong(line, f"label {row['label']!r}", f"one of {', '.join(classes)}")
        records.append(
            Record(
                image=partial(image_files.image, picture, options["channels"], options["white"]),
                target=made,
                patient=row["patient"],
                source=row["image"],
                split=split or None,
            )
        )
    return records


def write_phantom(
    folder: Path, patients: int, scans: int, image_size: tuple[int, int], seed: int = 0
) -> None:
    """Draw PNG scans of retinas, with masks of fluid, labels and a manifest for both tasks.

    Every second patient is healthy, the others have an oedema; one in four is for the test. A
    patient depends on `seed` and their number only.
    """
    from PIL import Image

    from dpmedbench.phantoms import retina

    if min(patients, scans) < 1:
        raise UserError(
            f"phantom: found {patients} patients with {scans} scans each, expected at least 1."
        )
    folder = Path(folder)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    tested = phantom_test_patients(patients)
    for patient in range(1, patients + 1):
        rng = np.random.default_rng([seed, patient])
        eye = retina.Eye.born(rng)
        if patient % 2:
            none = slice(0, 0)
            eye = replace(eye, oedema=0.0, layer=eye.layer[none], centre=eye.centre[none])
        for scan in range(1, scans + 1):
            drawn = retina.draw(eye, rng.normal(0, 300), image_size, rng)
            name = f"p{patient:03}_{scan:02}.png"
            Image.fromarray(drawn.image).save(folder / "images" / name)
            Image.fromarray((drawn.fluid > 0).astype(np.uint8)).save(folder / "masks" / name)
            label = "healthy" if patient % 2 else "oedema"
            split = "test" if patient > patients - tested else "train"
            rows.append((f"images/{name}", f"masks/{name}", label, f"p{patient:03}", split))
    with (
        replacing(folder / MANIFEST) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as handle,
    ):
        csv.writer(handle).writerows([("image", "mask", "label", "patient", "split"), *rows])


@dataclass(frozen=True)
class _Manifest:
    path: Path
    rows: list[tuple[int, dict[str, str]]]  # with the line of each

    def wrong(self, line: int, found: str, expected: str) -> UserError:
        return UserError(
            f"{self.path} line {line}: found {found}, expected {expected}; correct the manifest."
        )

    def file(self, line: int, name: str) -> Path:
        path, why = self.path.parent / name, "is no file"
        try:
            there = path.is_file()
        except OSError as error:  # a folder that may not be entered, a name that is too long
            there, why = False, f"cannot be looked at ({error.strerror})"
        if not there:
            raise self.wrong(line, f"{name!r}, which {why}", f"one seen from {path.parent}")
        return path.resolve()


def _manifest(folder: Path, options: Mapping[str, object]) -> _Manifest:
    path = folder if folder.is_file() else folder / (options["manifest"] or MANIFEST)
    needed = ("image", "patient", TARGET[options["task"]])
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, strict=True)
            columns = [name.strip() for name in next(reader, ())]
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: found no readable manifest ({error}), expected a CSV file in UTF-8 with the "
            f"columns {', '.join(needed)}; put it there, or name it in manifest."
        ) from error
    missing = [name for name in needed if name not in columns]
    if missing or not lines:
        raise UserError(
            f"{path}: found {'no column ' + ' and no '.join(missing) if missing else 'no row'}, "
            f"expected {', '.join(needed)} separated by commas and a row per image; correct the "
            "manifest, or set the task that it is for."
        )
    manifest = _Manifest(path, [])
    for line, cells in lines:
        if len(cells) != len(columns):
            raise manifest.wrong(
                line, f"{len(cells)} cells", f"{len(columns)} (a comma in a name needs quotes)"
            )
        manifest.rows.append((line, dict(zip(columns, cells, strict=True))))
    return manifest


def _classes(manifest: _Manifest, options: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the classes; labels that are numbers go by value."""
    segmentation, classes = options["task"] == "segmentation", options["classes"]
    values = options["mask_values"]
    if segmentation and not classes:
        raise UserError(
            f"{manifest.path}: found no classes set, expected the names of the classes of the "
            "masks, class 0 first; set the dataset's classes."
        )
    if values is not None and (not segmentation or len(set(values)) != len(classes)):
        raise UserError(
            f"{manifest.path}: found mask_values {list(values)}, expected a different value for "
            "each of the classes of masks; correct or leave out the dataset's mask_values."
        )
    if not classes:
        labels = {row["label"] for _, row in manifest.rows if row["label"]}
        numbers = all(re.fullmatch(r"[-+]?\d+(\.\d+)?", label) for label in labels)
        classes = sorted(labels, key=(lambda label: (float(label), label)) if numbers else None)
    if not 2 <= len(set(classes)) == len(classes) <= 255:
        raise UserError(
            f"{manifest.path}: found as classes {', '.join(classes) or 'nothing'}, "
            "expected 2 to 255 different names; correct the dataset's classes or the manifest."
        )
    return tuple(classes)
