"""Drawn fundus photographs: the back of eyes that never were, at the five stages of retinopathy.

Lengths are shares of the retina's radius in the picture: x to the right and y downwards, both 0
in its middle. Colours, sizes and numbers of lesions are round numbers by eye; none is fitted to a
dataset, so a phantom tells nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpmedbench.errors import UserError

SMALLEST = 32
GRADES = 5
OVERSAMPLING = 2  # lines are drawn in a picture so much larger, then made smooth

Colour = tuple[int, int, int]
DISC: Colour = (250, 220, 150)
VESSEL: Colour = (120, 28, 18)
BLOOD: Colour = (92, 12, 10)
EXUDATE: Colour = (250, 226, 120)
COTTON: Colour = (244, 216, 178)
SCAR: Colour = (214, 176, 120)


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye."""

    colour: np.ndarray  # (3,) of the retina, 0..255
    disc: np.ndarray  # (2,) centre of the optic disc
    disc_radius: float
    fovea: np.ndarray  # (2,)
    vessels: list[tuple[np.ndarray, float]]  # path (n, 2) and width of each

    @classmethod
    def born(cls, rng: np.random.Generator) -> Eye:
        """A new eye."""
        side = rng.choice([-1.0, 1.0])
        disc = np.array([side * rng.uniform(0.42, 0.55), rng.uniform(-0.08, 0.08)])
        vessels = []
        for up in (-1.0, 1.0):
            for lean in (-0.2, 0.25, 0.9):
                start = np.arctan2(up, -side * lean) + rng.normal(0, 0.15)
                turn = -side * up * rng.uniform(0.3, 1.0)
                vessels += _branches(disc, start, turn, rng.uniform(0.03, 0.045), rng)
        return cls(
            colour=np.array([200, 92, 42]) + rng.normal(0, 1, 3) * (18, 14, 10),
            disc=disc,
            disc_radius=rng.uniform(0.13, 0.17),
            fovea=np.array([-side * rng.uniform(0.05, 0.15), rng.uniform(-0.02, 0.1)]),
            vessels=vessels,
        )


def draw(eye: Eye, grade: int, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw one photograph of `eye` at `grade` (0 none to 4 proliferative): uint8 (H, W, 3).

    The retina is a disc on black that the camera may cut above and below. Lesions grow in number,
    size and kind with the grade: small red dots; blots and yellow exudates; many blots and cotton
    wool; tangles of new vessels, a pool of blood or the scars of a laser. UserError under 32
    pixels a side.
    """
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    height, width = image_size
    if min(image_size) < SMALLEST:
        raise UserError(
            f"phantom image_size: found {height} x {width}, expected at least {SMALLEST} a side."
        )
    radius = rng.uniform(0.94, 1.2) * height / 2
    radius = min(radius, 0.97 * width / 2)
    middle = np.array([width, height]) / 2 + rng.normal(0, 0.01, 2) * height
    canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING),
                       tuple(eye.colour.clip(0, 255).astype(int)))  # fmt: skip
    brush = _Brush(canvas, middle * OVERSAMPLING, radius * OVERSAMPLING)
    brush.spot(eye.disc, eye.disc_radius, DISC)
    for path, thickness in eye.vessels:
        brush.line(path, thickness, VESSEL)
    _lesions(brush, eye, grade, rng)

    picture = np.asarray(canvas.reduce(OVERSAMPLING), np.float32)
    picture = gaussian_filter(picture, (0.5, 0.5, 0))
    row, column = np.indices((height, width), dtype=np.float32)
    x, y = (column - middle[0]) / radius, (row - middle[1]) / radius
    out = np.hypot(x, y)
    macula = np.exp(-((np.hypot(x - eye.fovea[0], y - eye.fovea[1]) / 0.22) ** 2))
    light = 1.08 - 0.4 * out**2 - 0.3 * macula + 0.15 * (x * rng.normal() + y * rng.normal())
    mottle = gaussian_filter(rng.standard_normal((height, width), dtype=np.float32), height / 40)
    light += 0.03 * mottle / mottle.std()
    picture *= (light * rng.uniform(0.8, 1.1) * (out < 1))[..., None]
    picture += rng.normal(2, 2, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def _branches(
    start: np.ndarray, angle: float, turn: float, width: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, float]]:
    """A vessel from `start` that bends by `turn` (radians a radius), and those that leave it."""
    steps = 24
    angles = angle + turn * np.linspace(0, 1.3, steps) + rng.normal(0, 0.08, steps).cumsum()
    path = start + (0.065 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).cumsum(axis=0)
    found = [(path, width)]
    if width > 0.012:
        for place in rng.choice(np.arange(4, steps), 3, replace=False):
            away = angles[place] + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
            found += _branches(path[place], away, rng.normal(0, 0.5), 0.45 * width, rng)
    return found


class _Brush:
    """Draws on a picture in the retina's coordinates."""

    def __init__(self, canvas, middle: np.ndarray, radius: float) -> None:
        from PIL import ImageDraw

        self.pen, self.middle, self.radius = ImageDraw.Draw(canvas), middle, radius

    def line(self, path: np.ndarray, width: float, colour: Colour) -> None:
        points = self.middle + self.radius * path
        self.pen.line([tuple(p) for p in points], colour, max(round(width * self.radius), 1))

    def spot(self, centre: np.ndarray, radius: float, colour: Colour, flat: float = 1.0) -> None:
        x, y = self.middle + self.radius * np.asarray(centre)
        across = max(radius * self.radius, OVERSAMPLING * 0.7)
        self.pen.ellipse((x - across, y - across * flat, x + across, y + across * flat), colour)


# How many of each kind at grades 0 to 4, at least and at most.
DOTS = ((0, 0), (8, 14), (12, 22), (18, 30), (10, 25))
BLOTS = ((0, 0), (0, 0), (5, 9), (22, 32), (6, 16))
EXUDATES = ((0, 0), (0, 0), (8, 20), (0, 16), (0, 20))
COTTONS = ((0, 0), (0, 0), (0, 1), (3, 6), (0, 4))


def _lesions(brush: _Brush, eye: Eye, grade: int, rng: np.random.Generator) -> None:
    def places(kind: tuple[tuple[int, int], ...]) -> np.ndarray:
        count = rng.integers(kind[grade][0], kind[grade][1] + 1)
        angle, away = rng.uniform(0, 2 * np.pi, count), 0.9 * np.sqrt(rng.random(count))
        return np.stack([away * np.cos(angle), away * np.sin(angle)], axis=1)

    if grade == 4 and rng.random() < 0.5:
        steps = np.arange(-0.9, 0.95, 0.15)
        for place in np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2):
            if 0.5 < np.hypot(*place) < 0.95:
                brush.spot(place + rng.normal(0, 0.02, 2), rng.uniform(0.035, 0.05), SCAR)
    for place in places(COTTONS):
        brush.spot(place, rng.uniform(0.08, 0.14), COTTON, rng.uniform(0.6, 1))
    cluster = eye.fovea + rng.normal(0, 0.2, 2)
    for place in places(EXUDATES):
        brush.spot(cluster + 0.3 * place, rng.uniform(0.03, 0.05), EXUDATE)
    for place in places(BLOTS):
        brush.spot(place, rng.uniform(0.06, 0.1), BLOOD, rng.uniform(0.6, 1))
    for place in places(DOTS):
        brush.spot(place, rng.uniform(0.03, 0.045), BLOOD)
    if grade == 4:
        for _ in range(rng.integers(3, 6)):
            brush.line(_tangle(eye.disc + rng.normal(0, 0.12, 2), rng), 0.02, BLOOD)
        if rng.random() < 0.6:
            pool = rng.normal((0, 0.2), 0.3)
            brush.spot(pool, rng.uniform(0.18, 0.3), BLOOD, rng.uniform(0.4, 0.7))


def _tangle(start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The path of a new vessel: it winds about and leads nowhere."""
    angles = rng.normal(0, 0.9, 40).cumsum()
    return start + (0.03 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).cumsum(axis=0)
