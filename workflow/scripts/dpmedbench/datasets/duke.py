"""Duke DME: 110 graded OCT B-scans of ten patients with diabetic macular oedema.

Chiu et al., "Kernel regression based segmentation of optical coherence tomography images with
diabetic macular edema", Biomedical Optics Express 6(4), 2015. A volume is one MATLAB 5 file
`2015_BOE_Chiu/Subject_<k>.mat`; H rows, W columns, S B-scans (496, 768, 61):

    images           (H, W, S) uint8
    manualLayers<g>  (8, W, S) row of each boundary, ILM to Bruch's membrane; NaN: not graded
    manualFluid<g>   (H, W, S) 0: no fluid, 1..k: number of the pocket; NaN: not graded

for the graders g = 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dpmedbench import matlab
from dpmedbench.console import say
from dpmedbench.datasets.base import IGNORE, DatasetSpec, Download, Record
from dpmedbench.errors import UserError, one_line
from dpmedbench.files import replacing

FOLDER = "2015_BOE_Chiu"
LAYERS = ("NFL", "GCL-IPL", "INL", "OPL", "ONL-ISM", "ISE", "OS-RPE")
FLUID = 8

SPEC = DatasetSpec(
    name="duke",
    title="Duke DME",
    task="segmentation",
    classes=("background", *LAYERS, "fluid"),
    channels=1,
    boundaries=8,
    nominal_patients=10,
    nominal_records_per_patient=11,
    download=Download(
        url="https://www.duke.edu/~sf59/Datasets/2015_BOE_Chiu2.zip",
        filename="2015_BOE_Chiu2.zip",
    ),
    options={"grader": (1, 2)},
)

OFFICIAL_SIZE = (496, 768)
OFFICIAL_SCANS = 61
# B-scans that were graded, counted from the one through the fovea: dense there, sparse outside.
GRADED_OFFSETS = (-20, -15, -10, -5, -2, 0, 2, 5, 10, 15, 20)


def read(folder: Path, options: Mapping[str, object]) -> Iterator[Record]:
    """Yield the graded scans of every subject in `folder` (or in `folder`/2015_BOE_Chiu).

    `options["grader"]` is 1 or 2: whose annotation is the truth.

    A scan is graded where some column has all eight boundaries and fluid was graded. It is
    cropped to its graded columns, the first to the last with any boundary. A scan with layers
    but no fluid graded is left out: its "no fluid" would be a guess (said, and counted as
    `scans_without_fluid_grade`). Raises UserError for what is missing, truncated or wrong.
    """
    for path in _subjects(Path(folder)):
        yield from _read_subject(path, options["grader"])


def to_mask(layers: np.ndarray, fluid: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Turn boundaries and fluid into a mask of classes.

    `layers` is (8, W), rows counted from 0, NaN where not graded; `fluid` is (H, W), more than 0
    inside a pocket, NaN where not graded. Returns the uint8 (H, W) mask and counts.

    A boundary is rounded to the nearest row (halves downwards in the picture), which becomes the
    first row of the region under it. A boundary above the previous one is lifted to it, so that
    the layer between is empty. IGNORE marks a column that lacks a boundary, and a pixel of the
    retina whose fluid is not graded.
    """
    graded = np.isfinite(layers).all(axis=0)
    rows = np.floor(np.where(graded, layers, 0.0) + 0.5)
    lifted = np.maximum.accumulate(rows, axis=0)
    row = np.arange(len(fluid))[:, None]
    mask = np.zeros(fluid.shape, np.uint8)
    for boundary in lifted:
        mask += row >= boundary
    mask[mask == len(lifted)] = 0  # under Bruch's membrane
    unknown = np.isnan(fluid)
    mask[unknown & (mask > 0)] = IGNORE
    mask[~unknown & (fluid > 0)] = FLUID
    mask[:, ~graded] = IGNORE
    counts = {
        "columns": graded.size,
        "columns_not_graded": int((~graded).sum()),
        "boundaries_lifted": int((lifted != rows).sum()),
    }
    return mask, counts


def write_phantom(
    folder: Path,
    patients: int,
    scans: int,
    image_size: tuple[int, int] = OFFICIAL_SIZE,
    seed: int = 0,
) -> None:
    """Draw `patients` volumes with `scans` graded B-scans each, in the official layout.

    As in the official files a volume has 61 B-scans, the middle columns are graded, and one scan
    has four columns that lack a boundary. Grader 2 is grader 1 with a less steady hand.
    A patient depends on `seed` and their number only.
    """
    import scipy.io

    if patients < 1 or not 1 <= scans <= OFFICIAL_SCANS:
        raise UserError(
            f"phantom: found {patients} patients with {scans} scans each, expected at least 1 "
            f"patient and 1 to {OFFICIAL_SCANS} scans."
        )
    for patient in range(1, patients + 1):
        volume = _draw_subject(patient, scans, image_size, np.random.default_rng([seed, patient]))
        with (
            replacing(Path(folder) / FOLDER / f"Subject_{patient:02}.mat") as temporary,
            open(temporary, "wb") as handle,
        ):
            scipy.io.savemat(handle, volume, do_compression=True)


def _subjects(folder: Path) -> list[Path]:
    for place in (folder, folder / FOLDER):
        found = {int(match[1]): path for path in place.glob("*.mat")
                 if (match := re.fullmatch(r"Subject_(\d+)\.mat", path.name))}  # fmt: skip
        if found:
            return [found[number] for number in sorted(found)]
    what = (
        f"no file Subject_<number>.mat in it or in its {FOLDER}" if folder.is_dir() else "no folder"
    )
    raise UserError(
        f"{folder}: found {what}, expected the official Duke files {FOLDER}/Subject_01.mat to "
        "Subject_10.mat; unpack 2015_BOE_Chiu2.zip there, or set the source to phantom."
    )


def _read_subject(path: Path, grader: int) -> Iterator[Record]:
    images, layers, fluid = _load(path, grader)
    complete = np.isfinite(layers).all(axis=0).any(axis=0)
    graded, without_fluid = [], 0
    for scan in np.flatnonzero(complete):
        columns = np.flatnonzero(np.isfinite(layers[:, :, scan]).any(axis=0))
        crop = slice(columns[0], columns[-1] + 1)
        if np.isnan(fluid[:, crop, scan]).all():
            without_fluid += 1
        else:
            graded.append((scan, crop))
    if not graded:
        raise UserError(
            f"{path}: found no scan with layers and fluid graded by grader {grader}, expected at "
            f"least one; choose grader {3 - grader}, or take this file away."
        )
    if without_fluid:
        say(f"{path}: {without_fluid} scans with layers but no fluid graded are left out.")
    extra = {"scans_without_fluid_grade": without_fluid}
    for scan, crop in graded:
        mask, counts = to_mask(layers[:, crop, scan], fluid[:, crop, scan])
        yield Record(
            image=np.ascontiguousarray(images[:, crop, scan]),
            target=mask,
            patient=path.stem,
            source=f"{path.stem}/B-scan {scan + 1}",
            counts=counts | extra,
        )
        extra = {}


def _load(path: Path, grader: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images, layers and fluid of one file, their types and shapes checked."""
    import scipy.io

    names = ("images", f"manualLayers{grader}", f"manualFluid{grader}")
    present = matlab.shapes(path)
    missing = [name for name in names if name not in present]
    try:
        content = {} if missing else scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # scipy raises whatever the broken bytes lead it to
        raise UserError(
            f"{path}: found a file that cannot be read to its end ({one_line(error)}), expected "
            f"a MATLAB 5 file with {', '.join(names)}; download it again."
        ) from error
    if missing:
        raise UserError(
            f"{path}: found no variable {' and no '.join(missing)} (only "
            f"{', '.join(present) or 'nothing'}), expected {', '.join(names)}; "
            "download it again or choose the other grader."
        )
    images, layers, fluid = (content[name] for name in names)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise UserError(_wrong(path, names[0], images, "uint8 of shape (rows, columns, scans)"))
    for name, array, shape in (
        (names[1], layers, (len(LAYERS) + 1, *images.shape[1:])),
        (names[2], fluid, images.shape),
    ):
        if array.shape != shape or array.dtype.kind not in "fui":
            raise UserError(_wrong(path, name, array, f"numbers of shape {shape}"))
    return images, layers, fluid


def _wrong(path: Path, name: str, array: np.ndarray, expected: str) -> str:
    return (
        f"{path}: found {name} with type {array.dtype} and shape {array.shape}, expected "
        f"{expected}; use the official file."
    )


def _draw_subject(
    patient: int, scans: int, image_size: tuple[int, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    from dpmedbench.phantoms import retina

    height, width = image_size
    eye = retina.Eye.born(rng)
    graded = set(_graded_scans(scans))
    left = round(width * rng.uniform(0.14, 0.18))
    crop = slice(left, width - left)
    shape = (height, width, OFFICIAL_SCANS)
    volume = {"images": np.zeros(shape, np.uint8, order="F")}
    for grader in "12":
        volume[f"manualLayers{grader}"] = np.full((8, *shape[1:]), np.nan, order="F")
        volume[f"manualFluid{grader}"] = np.full(shape, np.nan, order="F")
    for scan in range(OFFICIAL_SCANS):
        if scan not in graded and scan % 3:
            # Nobody reads it: its neighbour stands in, which halves the time.
            volume["images"][:, :, scan] = volume["images"][:, :, scan - 1]
            continue
        position = retina.SPAN_Y * (scan / (OFFICIAL_SCANS - 1) - 0.5)
        drawn = retina.draw(eye, position, image_size, rng)
        volume["images"][:, :, scan] = drawn.image
        if scan not in graded:
            continue
        for grader, seen in (("1", drawn), ("2", retina.regrade(drawn, rng))):
            volume[f"manualLayers{grader}"][:, crop, scan] = seen.boundaries[:, crop]
            volume[f"manualFluid{grader}"][:, :, scan] = seen.fluid
    if patient == 1:
        gap = slice(width // 2, width // 2 + 4)
        for grader in "12":
            volume[f"manualLayers{grader}"][1, gap, min(graded)] = np.nan
    return volume


def _graded_scans(scans: int) -> np.ndarray:
    """Which `scans` of the 61 B-scans are graded, spread as in the official files."""
    if scans > len(GRADED_OFFSETS):
        return np.linspace(0, OFFICIAL_SCANS - 1, scans).round().astype(int)
    places = np.linspace(0, len(GRADED_OFFSETS) - 1, scans) if scans > 1 else [5]
    offsets = np.interp(places, range(len(GRADED_OFFSETS)), GRADED_OFFSETS)
    return OFFICIAL_SCANS // 2 + offsets.round().astype(int)
