"""APTOS 2019: 3,662 fundus photographs graded for diabetic retinopathy.

Kaggle competition aptos2019-blindness-detection (Asia Pacific Tele-Ophthalmology Society). Raw
layout, as Kaggle's zip file holds it:

    train.csv                      id_code, diagnosis (0 no DR to 4 proliferative)
    train_images/<id_code>.png     RGB, of any size

The competition's test images have no published labels and are not read. Nobody published who is
on which image; what is known is that some files are equal byte for byte, under several ids.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dpmedbench.archives import Tree, open_tree
from dpmedbench.console import say
from dpmedbench.datasets.base import UNREADABLE, DatasetSpec, Record
from dpmedbench.errors import UserError
from dpmedbench.files import replacing
from dpmedbench.pictures import decode

TABLE, IMAGES = "train.csv", "train_images"
LAYOUT = rf"{TABLE}|{IMAGES}/[^/]+\.png"
COMPETITION = "aptos2019-blindness-detection"

SPEC = DatasetSpec(
    name="aptos",
    title="APTOS 2019",
    task="classification",
    classes=("no DR", "mild", "moderate", "severe", "proliferative"),
    channels=3,
    boundaries=0,
    nominal_patients=3534,
    nominal_records_per_patient=3662 / 3534,
    download=None,
    options={"conflicts": ("drop", "keep"), "unreadable": UNREADABLE},
)

DARK = 16  # grey level up to which a pixel of the border counts as black
NOTABLE = 0.01  # share of a row or column that must be brighter to be retina


def read(folder: Path, options: Mapping[str, object]) -> list[Record]:
    """The labelled photographs in `folder`, or in its zip or tar file, in the order of train.csv.

    Files equal byte for byte are one group, which never crosses a split; it bears the first id
    among them and stands where a patient would. Groups whose labels differ are left out whole, or
    with `options["conflicts"]` "keep" kept with the labels as they are. Counted are the images in
    groups of several (`equal_images`) and with differing labels (`equal_images_labels_differ`),
    and the images that train.csv does not name (`images_without_label`), which are left out.
    Every photograph is cropped by `crop`. UserError for a wrong table and for missing images.
    """
    tree = open_tree(
        Path(folder), LAYOUT,
        f"{TABLE} and {IMAGES}/*.png, or the zip file that holds them; log in to kaggle.com, "
        f"accept the rules of {COMPETITION}, run `kaggle competitions download -c {COMPETITION}` "
        "and name its folder as path, or set the source to phantom",
    )  # fmt: skip
    grades = _grades(tree)
    names = {f"{IMAGES}/{key}.png": key for key in grades}
    if missing := [name for name in names if name not in tree.sizes]:
        raise UserError(
            f"{tree.place}: found no file for {len(missing)} of {len(names)} rows of {TABLE} "
            f"({_some(missing)}), expected every image; unpack or download all of it again."
        )
    extra = [name for name in tree.sizes if name not in names and name != TABLE]
    if extra:
        say(f"{tree.place}: {len(extra)} images that {TABLE} does not name are left out "
            f"({_some(extra)}).")  # fmt: skip
    groups = _groups(tree, names)
    equal = [group for group in groups if len(group) > 1]
    differ = [group for group in equal if len({grades[names[name]] for name in group}) > 1]
    kept = groups
    if differ and options["conflicts"] == "drop":
        kept = [group for group in groups if group not in differ]
        say(f"{tree.place}: {sum(map(len, differ))} images in {len(differ)} groups of equal files "
            "with unequal labels are left out.")  # fmt: skip
    group_of = {name: names[group[0]] for group in kept for name in group}
    records = [
        Record(
            image=partial(_decode, tree, name),
            target=grades[key],
            patient=group_of[name],
            source=name,
        )
        for name, key in names.items()
        if name in group_of
    ]
    if records:
        records[0].counts.update(
            equal_images=sum(map(len, equal)),
            equal_images_labels_differ=sum(map(len, differ)),
            images_without_label=len(extra),
        )
    return records


def crop(image: np.ndarray) -> np.ndarray:
    """Cut a uint8 (H, W, 3) photograph to the box of its retina.

    The box holds every row and column of which 1 % is brighter than `DARK` in some channel; a
    photograph without any is kept whole. The rule looks at this one photograph and at constants,
    never at others: adding or removing an image changes no other image, which is all that the
    sensitivity of training rests on.
    """
    bright = image.max(axis=2) > DARK
    rows = np.flatnonzero(bright.mean(axis=1) >= NOTABLE)
    columns = np.flatnonzero(bright.mean(axis=0) >= NOTABLE)
    if not rows.size or not columns.size:
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def write_phantom(
    folder: Path, patients: int, scans: int, image_size: tuple[int, int], seed: int
) -> None:
    """Draw `patients` times `scans` photographs, each of another eye, in the official layout.

    The grades take turns. As in the official files there are equal images: the first photograph
    comes under a second id, and a further one under two ids with different labels. Some ids look
    like numbers. A photograph depends on `seed` and its number only.
    """
    import zlib

    from PIL import Image

    from dpmedbench.phantoms import fundus

    if patients < 1 or scans < 1:
        raise UserError(
            f"phantom: found {patients} patients with {scans} scans each, expected at least 1 of "
            "both."
        )
    rows = []
    for number in range(patients * scans + 1):
        rng = np.random.default_rng([seed, number])
        grade = number % fundus.GRADES
        buffer = io.BytesIO()
        Image.fromarray(fundus.draw(fundus.Eye.born(rng), grade, image_size, rng)).save(
            buffer, "PNG", compress_level=zlib.Z_BEST_SPEED
        )
        twin = {0: grade, patients * scans: (grade + 2) % fundus.GRADES}.get(number)
        for diagnosis in (grade,) if twin is None else (grade, twin):
            key = rng.bytes(6).hex() if number % 3 else f"{rng.integers(10**9):012}"
            rows.append((key, diagnosis))
            with replacing(Path(folder) / IMAGES / f"{key}.png") as temporary:
                temporary.write_bytes(buffer.getvalue())
    with replacing(Path(folder) / TABLE) as temporary:
        lines = [f"{key},{diagnosis}" for key, diagnosis in rows]
        temporary.write_text("\n".join(["id_code,diagnosis", *lines, ""]), encoding="utf-8")


def _grades(tree: Tree) -> dict[str, int]:
    """The grade of each id in the table, both checked."""
    place = f"{tree.place}/{TABLE}"
    if TABLE not in tree.sizes:
        raise UserError(
            f"{place}: found no file, expected the table of labels beside {IMAGES}; download it."
        )
    try:
        table = csv.DictReader(io.StringIO(tree.read(TABLE).decode("utf-8-sig"), newline=""))
        rows, columns = list(table), table.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place}: found no readable CSV ({error}); download it again.") from error
    if not rows or not {"id_code", "diagnosis"} <= set(columns):
        raise UserError(
            f"{place}: found {len(rows)} rows with the columns {', '.join(columns) or 'none'}, "
            "expected id_code and diagnosis; download it again."
        )
    grades: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        key, diagnosis = ((row.get(name) or "").strip() for name in ("id_code", "diagnosis"))
        problem = None
        if not key or key in grades:
            problem = f"id_code {key!r}, expected a name that comes once"
        elif diagnosis not in tuple("01234"):
            problem = f"diagnosis {diagnosis!r}, expected 0 to 4"
        if problem:
            raise UserError(f"{place} line {line}: found {problem}; download it again.")
        grades[key] = int(diagnosis)
    return grades


def _groups(tree: Tree, names: Mapping[str, str]) -> list[list[str]]:
    """The files, those with equal bytes together; only files of equal size are read for it."""
    by_size, groups = defaultdict(list), defaultdict(list)
    for name in names:
        by_size[tree.sizes[name]].append(name)
    for name in names:
        size = tree.sizes[name]
        alone = len(by_size[size]) == 1 or not size  # an empty file is broken, not a copy
        groups[name if alone else hashlib.sha256(tree.read(name)).digest()].append(name)
    return list(groups.values())


def _decode(tree: Tree, name: str) -> np.ndarray:
    return crop(decode(tree.read(name), "RGB", f"{tree.place}/{name}"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
