"""Encoded pictures to arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dpmedbench.datasets.base import Unreadable
from dpmedbench.errors import one_line

if TYPE_CHECKING:
    import numpy as np


PIXELS = 80_000_000  # of the largest picture that is decoded; mammograms have 30 million


def check_size(pixels: int) -> None:
    """Raise ValueError for a picture larger than any that is meant, before it is decoded."""
    if pixels > PIXELS:
        raise ValueError(f"{pixels} pixels, more than {PIXELS // 1_000_000} million")


def decode(data: bytes, mode: Literal["L", "RGB"], name: str) -> np.ndarray:
    """Decode the bytes of a JPEG or PNG file: uint8, (H, W) for L and (H, W, 3) for RGB.

    Colours become grey as in ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue. `name` is what
    the file is called in the error: Unreadable for an empty, cut or otherwise broken file, for
    more than `PIXELS`, and for more than 8 bits a channel, whose range nobody stated.
    """
    import io

    import numpy as np
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise _unreadable(name, "an empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            check_size(picture.height * picture.width)
            return np.asarray(picture.convert(mode))
    except UnidentifiedImageError as error:
        raise _unreadable(name, "neither JPEG nor PNG") from error
    except Exception as error:  # Pillow raises whatever the broken bytes lead it to
        raise _unreadable(name, f"no readable picture ({one_line(error)})") from error


def _unreadable(name: str, what: str) -> Unreadable:
    return Unreadable(
        f"{name}: found {what}, expected a whole JPEG or PNG file; restore it, or set unreadable "
        "to leave_out."
    )
