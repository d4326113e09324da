"""Chest X-ray: 5,856 frontal radiographs of children, normal or with pneumonia.

Kermany et al., "Identifying medical diagnoses and treatable diseases by image-based deep
learning", Cell 172(5), 2018; CC BY 4.0. Raw layout, RGB and grey JPEG of any size:

    chest_xray/{train,val,test}/NORMAL/[NORMAL2-]IM-<N>-<k>.jpeg
    chest_xray/{train,val,test}/PNEUMONIA/person<N>_{bacteria,virus}_<k>.jpeg

Mendeley's ChestXRay2017.zip has no val; Kaggle's archive took 16 training images for it, and
holds the whole tree twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dpmedbench.archives import Tree, open_tree
from dpmedbench.console import say
from dpmedbench.datasets.base import (
    UNREADABLE,
    DatasetSpec,
    Download,
    Record,
    phantom_test_patients,
)
from dpmedbench.errors import UserError
from dpmedbench.files import replacing
from dpmedbench.pictures import decode

FOLDER = "chest_xray"
FOLDERS = ("NORMAL", "PNEUMONIA")
LAYOUT = r"(?:train|val|test)/(?:NORMAL|PNEUMONIA)/[^/]+\.(?i:jpe?g)"

SPEC = DatasetSpec(
    name="chest_xray",
    title="Chest X-ray",
    task="classification",
    classes=("normal", "pneumonia"),
    channels=1,
    boundaries=0,
    nominal_patients=4097,
    nominal_records_per_patient=5856 / 4097,
    nominal_test_patients=428,
    download=Download(
        url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        filename="ChestXRay2017.zip",
        size=1_235_512_464,
        sha256="13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
    ),
    options={"unreadable": UNREADABLE},
)

KINDS = ("IM", "bacteria", "NORMAL2-IM", "virus")


def read(folder: Path, options: Mapping[str, object]) -> list[Record]:
    """The radiographs in `folder`: the tree, a folder above it, or its zip or tar file.

    A patient is (bacteria or virus, N) or (NORMAL2-IM or IM, N): N alone is given to several. The
    official test set is kept; val, too small to validate on, belongs to train. Colour becomes
    grey as in `pictures.decode`. UserError for a tree without train or test, two trees that
    differ, and a file whose name tells no patient.
    """
    tree = open_tree(
        Path(folder), LAYOUT,
        "the official files chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg, or the zip or tar "
        "file that holds them; name it as path, or set the source to download or phantom",
    )  # fmt: skip
    parts = {name.partition("/")[0] for name in tree.sizes}
    if missing := sorted({"train", "test"} - parts):
        raise UserError(
            f"{tree.place}: found no image in {' and no '.join(missing)}, expected the official "
            "training and test images; unpack or download all of it again."
        )
    counts = {}
    if tree.copies:
        counts["files_of_a_second_copy"] = tree.copies * len(tree.sizes)
        say(f"{tree.place}: the same tree lies there {tree.copies + 1} times, counted once.")
    records = [_record(tree, name) for name in tree.sizes]
    records[0].counts.update(counts)
    return records


def patient_of(name: str) -> str:
    """Who is on the image of this file name; UserError where it is no official one."""
    if match := re.match(r"person(\d+)_(bacteria|virus)_", name):
        return f"person{int(match[1])}_{match[2]}"
    if match := re.match(r"((?:NORMAL2-)?IM)-(\d+)-", name):
        return f"{match[1]}-{int(match[2]):04}"
    raise UserError(
        f"{name}: found a name that tells no patient, expected person<N>_bacteria_<k>.jpeg, "
        "person<N>_virus_<k>.jpeg or [NORMAL2-]IM-<N>-<k>.jpeg; take the file away."
    )


def write_phantom(
    folder: Path, patients: int, scans: int, image_size: tuple[int, int], seed: int
) -> None:
    """Draw `scans` radiographs of each of `patients` children, in Kaggle's layout.

    Normal and ill take turns. A quarter of the patients is the test set, and the last of eight or
    more lies in val. As in the official files numbers come again from kind to kind, and some
    images of the ill are RGB. A patient depends on `seed` and their number only.
    """
    from PIL import Image

    from dpmedbench.phantoms import chest

    if patients < 3 or scans < 1:
        raise UserError(
            f"phantom: found {patients} patients with {scans} scans each, expected at least 3 "
            "patients and 1 scan."
        )
    test = phantom_test_patients(patients)
    for patient in range(patients):
        rng = np.random.default_rng([seed, patient])
        child = chest.Child.born(rng)
        kind, number = KINDS[patient % len(KINDS)], patient // len(KINDS) + 1
        ill = kind in ("bacteria", "virus")
        part = "test" if patient < test else "val" if patient == patients - 1 >= 7 else "train"
        for scan in range(1, scans + 1):
            image = Image.fromarray(chest.draw(child, kind if ill else "none", image_size, rng))
            name = (
                f"person{number}_{kind}_{patient * scans + scan}.jpeg"
                if ill
                else f"{kind}-{number:04}-{scan:04}.jpeg"
            )
            if kind == "virus" and scan == 1:
                image = image.convert("RGB")
            with replacing(Path(folder) / FOLDER / part / FOLDERS[ill] / name) as temporary:
                image.save(temporary, "JPEG", quality=90)


def _record(tree: Tree, name: str) -> Record:
    part, label, file = name.split("/")
    return Record(
        image=partial(_decode, tree, name),
        target=FOLDERS.index(label),
        patient=patient_of(file),
        source=name,
        split="test" if part == "test" else "train",
    )


def _decode(tree: Tree, name: str) -> np.ndarray:
    return decode(tree.read(name), "L", f"{tree.place}/{name}")
