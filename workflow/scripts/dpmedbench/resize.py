"""Resizing of images and masks; (H, W) throughout."""

from __future__ import annotations

import numpy as np


def image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 `pixels`, (H, W) or (H, W, 3), to `size` with an antialiased bilinear filter.

    Going down, Pillow's triangle filter covers all the pixels that a new one stands for.
    """
    return _resize(pixels, size, "BILINEAR")


def mask(classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 (H, W) mask to `size`: each new pixel is the nearest old one.

    Class numbers are names, so nothing may be interpolated between them.
    """
    return _resize(classes, size, "NEAREST")


def _resize(array: np.ndarray, size: tuple[int, int], resampling: str) -> np.ndarray:
    from PIL import Image

    if array.shape[:2] == tuple(size):
        return array
    height, width = size
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(picture.resize((width, height), Image.Resampling[resampling]))
