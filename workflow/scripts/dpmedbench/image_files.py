"""Image and mask files of many formats to arrays: PNG, TIFF, JPEG, NPY and DICOM.

What becomes of a pixel depends on its own file and on constants, never on other files: a scale
taken from the data would have to be paid for in privacy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dpmedbench.datasets.base import IGNORE, Unreadable
from dpmedbench.errors import UserError, one_line
from dpmedbench.pictures import check_size

FORMATS = "PNG, TIFF, JPEG, NPY or DICOM"


def image(path: Path, channels: int, white: float | None = None) -> np.ndarray:
    """Read an image: uint8 (H, W) for one channel, (H, W, 3) for three.

    8 bits are taken as they are. Other numbers are scaled so that 0 is black and `white` is 255
    (None: 65535 for whole numbers, 1 for fractions); DICOM as it asks to be shown, see `_dicom`.
    Colours become grey as in ITU-R BT.601, 0.299 red + 0.587 green + 0.114 blue; grey becomes
    three equal channels. UserError for values outside 0 to white, Unreadable for a broken file.
    """
    from PIL import Image

    array = _to_bytes(path, _read(path, white=white), white)
    mode = "L" if channels == 1 else "RGB"
    return np.asarray(Image.fromarray(array).convert(mode))


def mask(path: Path, classes: int, values: Sequence[int] | None = None) -> np.ndarray:
    """Read a mask of class numbers: uint8 (H, W), IGNORE where nobody graded.

    `values` says which value of the file is each class, None: 0, 1, 2, ... A value 255 that is
    no class is IGNORE. White of a file of 1 bit a pixel is 255 where `values` has that and not 1,
    as it would be in 8 bits. UserError for any other value, for colours, and where 0 and 255 of two
    classes may mean either; Unreadable for a broken file.
    """
    array = _read(path, indices=True)
    if not array.size or array.ndim != 2 or array.dtype.kind not in "bui":
        raise UserError(
            f"{path}: found {array.dtype} of shape {array.shape}, expected one whole number a "
            "pixel; save the mask as grey values or palette indices."
        )
    if array.dtype == bool and values and 255 in values and 1 not in values:
        array = array * np.uint8(255)
    found = np.unique(array).tolist()
    if values is None and classes == 2 and found[-1] == IGNORE and 1 not in found:
        raise UserError(
            f"{path}: found the values {' and '.join(map(str, found))}, expected 0 and 1; set "
            "mask_values to [0, 255], or to [0, 1] where 255 means not graded."
        )
    meaning = {IGNORE: IGNORE} | {v: c for c, v in enumerate(values or range(classes))}
    if unknown := [value for value in found if value not in meaning]:
        known = ", ".join(map(str, sorted(meaning)))
        raise UserError(
            f"{path}: found the value {unknown[0]}, expected {known}; "
            "correct the mask, or set classes and mask_values."
        )
    classes_of = np.zeros(256, np.uint8)
    classes_of[list(meaning)] = list(meaning.values())
    return classes_of[array.astype(np.uint8)]


def _to_bytes(path: Path, array: np.ndarray, white: float | None) -> np.ndarray:
    shaped = array.size and (array.ndim == 2 or array.shape[2:] == (3,))
    if not shaped or array.dtype.kind not in "buif":
        raise UserError(
            f"{path}: found an array of type {array.dtype} and shape {array.shape}, expected real "
            "numbers in (rows, columns) or (rows, columns, 3); save one image a file."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array * np.uint8(255)
    white = white or (1.0 if array.dtype.kind == "f" else 65535.0)
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= white:  # NaN neither
        remedy = "set white to the largest value that there can be"
        if low < 0:
            remedy = "save it with a constant added, so that black is 0"
        raise UserError(
            f"{path}: found values from {low:g} to {high:g} of type {array.dtype}, expected 0 to "
            f"{white:g}; {remedy}."
        )
    return np.rint(array * (255 / white)).astype(np.uint8)


def _read(path: Path, indices: bool = False, white: float | None = None) -> np.ndarray:
    """The array in the file; with `indices` the numbers stored, whatever they are shown as."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(132)
        if not head:
            raise ValueError("0 bytes")
        if head.startswith(b"\x93NUMPY"):
            return _numpy(path)
        if head[128:] == b"DICM":
            return _dicom(path, indices)
        return _picture(path, indices, white)
    except UserError:
        raise
    except Exception as error:  # the libraries raise whatever the broken bytes lead them to
        reason = one_line(error, 500).replace(str(path), "it")[:120]
        raise Unreadable(
            f"{path}: found no readable file ({reason}), expected a whole {FORMATS} file; restore "
            "it, or set unreadable to leave_out."
        ) from error


def _numpy(path: Path) -> np.ndarray:
    # Mapped: the header can claim no more than the file has, and the rest is read when needed.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    check_size(math.prod(array.shape[:2]))
    return np.asarray(array)


def _picture(path: Path, indices: bool, white: float | None) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    # by a handle: what Pillow maps from a name it lays out by the sides of the turned picture
    with open(path, "rb") as handle:
        try:
            picture = Image.open(handle, formats=("PNG", "TIFF", "JPEG"))
        except UnidentifiedImageError:
            raise ValueError("neither PNG, TIFF nor JPEG") from None
        if getattr(picture, "n_frames", 1) > 1:
            raise UserError(
                f"{path}: found {picture.n_frames} pages, expected one; save one image a file."
            )
        check_size(picture.height * picture.width)
        plain = picture.mode in ("1", "L", "RGB") or picture.mode.startswith(("I", "F"))
        if white and not picture.mode.startswith("I") and ";16" in str(picture.tile):
            raise UserError(
                f"{path}: found colours of 16 bits, of which the upper 8 are read whatever white "
                "is; save it with 8 bits a colour, or as NPY."
            )
        ImageOps.exif_transpose(picture, in_place=True)  # as it is shown; Pillow turns TIFF alone
        if plain or (indices and picture.mode == "P"):
            return np.asarray(picture)
        return np.asarray(picture.convert("L" if picture.mode == "LA" else "RGB"))


def _dicom(path: Path, indices: bool) -> np.ndarray:
    """A DICOM file as it asks to be shown, uint8; with `indices` the values it stores.

    Stored values are rescaled (slope and intercept), and its first window, or without one the
    whole range of the stored bits, becomes 0 to 255; MONOCHROME1 is inverted.
    """
    import pydicom
    from pydicom.pixels import apply_rescale, apply_windowing

    if pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID.is_deflated:
        raise ValueError("deflated, which may unpack to any size")
    dataset = pydicom.dcmread(path)
    check_size(dataset.Rows * dataset.Columns)
    kind = dataset.PhotometricInterpretation
    slope = float(dataset.get("RescaleSlope", 1))
    strange = [
        what
        for what, there in {
            f"{dataset.get('NumberOfFrames')} frames": int(dataset.get("NumberOfFrames") or 1) > 1,
            "a modality look-up table": "ModalityLUTSequence" in dataset,
            "a palette": kind == "PALETTE COLOR",
            f"the rescale slope {slope:g}": slope <= 0,
        }.items()
        if there
    ]
    if strange:
        raise UserError(
            f"{path}: found a DICOM file with {' and '.join(strange)}, expected one plain grey or "
            "colour image; export it as PNG."
        )
    pixels = dataset.pixel_array
    if indices or not kind.startswith("MONOCHROME"):
        return pixels
    bits = int(dataset.BitsStored)
    lowest = -(1 << (bits - 1)) if dataset.PixelRepresentation else 0
    black, white = (
        float(apply_rescale(np.array(value), dataset))
        for value in (lowest, lowest + (1 << bits) - 1)
    )
    shown = (apply_windowing(apply_rescale(pixels, dataset), dataset) - black) / (white - black)
    grey = np.rint(shown * 255).astype(np.uint8)
    return 255 - grey if kind == "MONOCHROME1" else grey
