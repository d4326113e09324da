"""The Laplace mechanism on images, and what it promises.

An image is numbers in [0, 1], one for each pixel and channel, kept as integers in steps of 1/255:
the image as it is stored, cropped and resized. Neighbours differ in one number at will. Its
sensitivity is 1, so that noise of scale beta makes it 1/beta-differentially private, without a
delta (Dwork et al. 2006). All numbers of an image together, replaced at will, cost the sum. The
label of an image has no noise and no protection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dpmedbench.privacy.randomness import Randomness

STEPS = 255  # of the interval [0, 1]
COLUMNS = ("beta", "epsilon_per_pixel", "epsilon_per_image", "note")
NOTES = {
    "laplace": "pure epsilon, for one pixel of one channel or all of an image replaced at will; "
    "labels are not protected",
    "scalar_per_image": "no privacy: one number added to all of an image leaves every difference "
    "between its pixels as it was",
}


def perturbed(image: np.ndarray, mode: str, beta: float, randomness: Randomness) -> np.ndarray:
    """An image of integers 0 to 255 with Laplace noise of scale `beta` * 255: int16, same shape.

    `mode` is "laplace", a draw for every number, or "scalar_per_image", one draw for all. Draws are
    rounded to whole steps before they are added, so that the sum is exact and its bits tell no
    more than its value (the holes of Mironov 2012, doi:10.1145/2382196.2382264, are in sums of
    floats); it is clipped to the range of int16, -128.5 to 128.5 in units of white. Rounding and
    clipping do not look at the image and cost nothing.
    """
    shape = image.shape if mode == "laplace" else (1,) * image.ndim
    noise = np.rint(STEPS * beta * laplace(shape, randomness))
    limits = np.iinfo(np.int16)
    return np.clip(image + noise, limits.min, limits.max).astype(np.int16)


def laplace(shape: Sequence[int], randomness: Randomness) -> np.ndarray:
    """Independent Laplace numbers of scale 1, float64: differences of two exponentials.

    Of 53 bits each, they end at 36.7; what lies beyond has a probability of 1e-16 a number.
    """
    one, other = np.log1p(-randomness.uniform(2 * int(np.prod(shape))).numpy()).reshape(2, *shape)
    return one - other


def promise(mode: str, beta: float, numbers: int) -> dict[str, float | str | None]:
    """`COLUMNS` of a cell whose images have `numbers` = pixels x channels; None: no bound."""
    private = mode == "laplace"
    return {
        "beta": beta,
        "epsilon_per_pixel": 1 / beta if private else None,
        "epsilon_per_image": numbers / beta if private else None,
        "note": NOTES[mode],
    }
