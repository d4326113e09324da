"""UMN DME: 725 OCT B-scans of 29 patients with diabetic macular oedema, fluid marked.

Rashno et al., "Fully automated segmentation of fluid/cyst regions in optical coherence tomography
images with diabetic macular edema using neutrosophic sets and graph algorithms", IEEE Trans.
Biomed. Eng. 65(5), 2018. One MATLAB 5 file `UMNDataset.mat` with three cell arrays; a cell is the
volume of one patient, H rows, W columns, S B-scans (496, 1024, 25):

    AllSubjects   (1, 30)  (H, W, S) uint8
    ManualFluid1  (1, 29)  (H, W, S) uint8, 0 or 1: fluid as grader 1 marked it
    ManualFluid2  (1, 29)  the same by grader 2

The last volume has no masks and is dropped. A file with the same variables and as many masks as
volumes, `UMN_Dataset.mat` (24 of each), is another dataset.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dpmedbench import matlab
from dpmedbench.datasets.base import DatasetSpec, Download, Record
from dpmedbench.errors import UserError
from dpmedbench.files import replacing

FILE = "UMNDataset.mat"
LOOK_ALIKE = "UMN_Dataset.mat"
SPAN = 0.85  # of a drawn eye; leaves about as many scans without fluid as there are officially
VOLUMES, MASKS = "AllSubjects", {1: "ManualFluid1", 2: "ManualFluid2"}

SPEC = DatasetSpec(
    name="umn",
    title="UMN DME",
    task="segmentation",
    classes=("background", "fluid"),
    channels=1,
    boundaries=0,
    nominal_patients=29,
    nominal_records_per_patient=25,
    download=Download(
        url="https://people.ece.umn.edu/users/parhi/.DATA/OCT/DME/UMNDataset.mat",
        filename=FILE,
    ),
    options={"grader": (1, 2, "union", "intersection")},
)


def read(folder: Path, options: Mapping[str, object]) -> Iterator[Record]:
    """Yield every scan of every patient with masks in `folder`/UMNDataset.mat (or that file).

    `options["grader"]` is 1, 2, "union" (either marked it) or "intersection" (both did). One
    volume and its masks are in memory at a time. `counts` has the scans without fluid. Raises
    UserError for what is missing, truncated or wrong.
    """
    path = _file(Path(folder))
    grader = options["grader"]
    names = [MASKS[grader]] if grader in MASKS else list(MASKS.values())
    patients = _check(path, names)
    sources = [matlab.cells(path, name) for name in (VOLUMES, *names)]
    for patient in range(1, patients + 1):
        volume, *masks = (next(source) for source in sources)
        fluid = _joined(path, patient, volume, masks, grader)
        for scan in range(volume.shape[2]):
            mask = np.ascontiguousarray(fluid[:, :, scan])
            yield Record(
                image=np.ascontiguousarray(volume[:, :, scan]),
                target=mask,
                patient=f"Subject_{patient:02}",
                source=f"Subject_{patient:02}/B-scan {scan + 1}",
                counts={"scans_without_fluid": int(not mask.any())},
            )


def write_phantom(
    folder: Path,
    patients: int,
    scans: int,
    image_size: tuple[int, int] = (496, 1024),
    seed: int = 0,
) -> None:
    """Draw UMNDataset.mat with `patients` volumes of `scans` B-scans, and one without masks.

    Grader 2 is grader 1 with a less steady hand. A patient depends on `seed` and their number
    only. All volumes are in memory at once.
    """
    from scipy.io.matlab import savemat

    if min(patients, scans) < 1:
        raise UserError(
            f"phantom: found {patients} patients with {scans} scans each, expected at least 1."
        )
    names = (VOLUMES, *MASKS.values())
    content = {name: np.empty((1, patients), object) for name in names}
    content[VOLUMES] = np.empty((1, patients + 1), object)
    for patient in range(1, patients + 2):
        drawn = _draw(scans, image_size, np.random.default_rng([seed, patient]))
        for name, volume in zip(names, drawn, strict=True):
            if name == VOLUMES or patient <= patients:
                content[name][0, patient - 1] = volume
    with replacing(Path(folder) / FILE) as temporary, open(temporary, "wb") as handle:
        savemat(handle, content, do_compression=True)


def _file(folder: Path) -> Path:
    path = folder if folder.is_file() else folder / FILE
    if path.is_file() and path.name != LOOK_ALIKE:
        return path
    if path.name == LOOK_ALIKE or (folder / LOOK_ALIKE).is_file():
        what = f"{LOOK_ALIKE}, another dataset with the same variables"
    else:
        what = f"no {FILE} in it" if folder.is_dir() else "no folder"
    raise UserError(
        f"{folder}: found {what}, expected the official {FILE}; put it there, or set the source "
        "to download or phantom."
    )


def _check(path: Path, names: list[str]) -> int:
    """The number of patients with masks."""
    shapes = matlab.shapes(path)
    missing = [name for name in (VOLUMES, *names) if name not in shapes]
    if missing:
        raise UserError(
            f"{path}: found no variable {' and no '.join(missing)} (only "
            f"{', '.join(shapes) or 'nothing'}), expected {', '.join((VOLUMES, *names))}; "
            "get it again."
        )
    volumes, *masks = (int(np.prod(shapes[name])) for name in (VOLUMES, *names))
    if not volumes or any(count != volumes - 1 for count in masks):
        raise UserError(
            f"{path}: found {volumes} volumes and {' and '.join(map(str, masks))} masks, expected "
            f"one volume more than masks (30 and 29), as {LOOK_ALIKE} does not have; use the "
            f"official {FILE}."
        )
    return volumes - 1


def _joined(
    path: Path, patient: int, volume: np.ndarray, masks: list[np.ndarray], grader: int | str
) -> np.ndarray:
    """The masks as one, (H, W, S) uint8, all types, shapes and values checked."""
    if volume.ndim != 3 or volume.dtype != np.uint8:
        raise _wrong(path, patient, VOLUMES, volume, "uint8 of shape (rows, columns, scans)")
    for mask in masks:
        if mask.shape != volume.shape or mask.dtype != np.uint8:
            raise _wrong(path, patient, "a mask", mask, f"uint8 of shape {volume.shape}")
        if mask.max() > 1:
            raise UserError(
                f"{path}: found mask value {mask.max()} in volume {patient}, expected 0 or 1; use "
                "the official file."
            )
    join = np.bitwise_and if grader == "intersection" else np.bitwise_or
    return functools.reduce(join, masks)


def _wrong(path: Path, patient: int, what: str, array: np.ndarray, expected: str) -> UserError:
    return UserError(
        f"{path}: found {what} of volume {patient} with type {array.dtype} and shape "
        f"{array.shape}, expected {expected}; use the official file."
    )


def _draw(
    scans: int, image_size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A volume and its two masks, (H, W, S) uint8 each."""
    from dpmedbench.phantoms import retina

    eye = retina.Eye.born(rng)
    made = tuple(np.zeros((*image_size, scans), np.uint8, order="F") for _ in range(3))
    for scan in range(scans):
        position = SPAN * retina.SPAN_Y * ((scan + 0.5) / scans - 0.5)
        drawn = retina.draw(eye, position, image_size, rng)
        seen = retina.regrade(drawn, rng)
        for volume, picture in zip(
            made, (drawn.image, drawn.fluid > 0, seen.fluid > 0), strict=True
        ):
            volume[:, :, scan] = picture
    return made
