"""Drawn chest radiographs: frontal views of children who never were.

Lengths are shares of half the picture's height: x to the right and y downwards, both 0 in the
middle. Grey levels and sizes are round numbers by eye; none is fitted to a dataset, so a phantom
tells nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dpmedbench.errors import UserError

SMALLEST = 32
Finding = Literal["none", "bacteria", "virus"]


@dataclass(frozen=True)
class Child:
    """The anatomy of one chest; side 0 is the right lung, which lies left in the picture."""

    centre: np.ndarray  # (2, 2) x, y of each lung
    radius: np.ndarray  # (2, 2) along x, y
    dome: np.ndarray  # (2,) height of each half of the diaphragm
    heart: np.ndarray  # (4,) x, y, radius along x, along y
    ribs: float  # distance of two ribs
    rib_slope: float
    chest: float  # half the width
    air: float  # how dark the lungs are, 0..1
    bone: float  # how bright the bones are

    @classmethod
    def born(cls, rng: np.random.Generator) -> Child:
        """A new child."""
        width = rng.uniform(0.33, 0.4)
        return cls(
            centre=np.array([[-0.46, -0.08], [0.47, -0.08]]) + rng.normal(0, 0.02, (2, 2)),
            radius=np.array([[width, 0.72], [width - 0.02, 0.74]]) + rng.normal(0, 0.02, (2, 2)),
            dome=np.array([0.34, 0.42]) + rng.normal(0, 0.04, 2),
            heart=np.array([0.12, 0.22, 0.36, 0.34]) + rng.normal(0, 0.03, 4),
            ribs=rng.uniform(0.17, 0.21),
            rib_slope=rng.uniform(0.15, 0.4),
            chest=rng.uniform(0.95, 1.1),
            air=rng.uniform(0.65, 0.85),
            bone=rng.uniform(0.07, 0.13),
        )


def draw(
    child: Child, finding: Finding, image_size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw one radiograph of `child`: uint8 (H, W).

    Bacteria fill one place of a lung, or two; a virus clouds both lungs in patches. Position and
    exposure differ from picture to picture and overlap between findings, so that no pixel and no
    mean tells them apart. UserError under 32 pixels a side.
    """
    height, width = image_size
    if min(image_size) < SMALLEST:
        raise UserError(
            f"phantom image_size: found {height} x {width}, expected at least {SMALLEST} a side."
        )
    x, y = _position(height, width, rng)
    lungs = _lungs(child, x, y)
    shadow = 0.62 * _inside(child.chest * (1 + 0.12 * y) - np.abs(x), 0.05)
    shadow *= _inside(y + 1.02 - 0.35 * np.maximum(np.abs(x) - 0.25, 0), 0.05)
    air = child.air * lungs.max(axis=0)
    air *= 1 - np.clip(_cloud(lungs, x, y, finding, rng), 0, 0.92)
    shadow *= 1 - air
    shadow += _bones(child, x, y) + 0.02 * _noise(x.shape, height / 40, rng) * lungs.max(axis=0)
    return _expose(shadow, rng)


def _position(height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel of a child that lies a little turned, shifted and scaled."""
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None] * min(max(width / height, 1), 1.4)
    angle, scale = rng.normal(0, 0.04), rng.uniform(0.95, 1.12)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    shift = rng.normal(0, 0.04, 2)
    return cosine * columns + sine * rows + shift[0], cosine * rows - sine * columns + shift[1]


def _inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where `distance` to an edge is positive, 0 where negative, soft in between."""
    return 1 / (1 + np.exp(-np.clip(distance / softness * 4, -30, 30)))


def _lungs(child: Child, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each lung is at every pixel, (2, H, W)."""
    hx, hy, ha, hb = child.heart
    heart = 1 - np.hypot((x - hx) / ha, (y - hy) / hb)
    sides = []
    for (cx, cy), (rx, ry), dome in zip(child.centre, child.radius, child.dome, strict=True):
        ellipse = 1 - (np.abs((x - cx) / rx) ** 2.4 + np.abs((y - cy) / ry) ** 2.4)
        floor = dome + 0.5 * (x - cx) ** 2 / rx - y + 0.12
        sides.append(_inside(ellipse, 0.3) * _inside(floor, 0.05) * (1 - _inside(heart, 0.25)))
    return np.stack(sides)


def _bones(child: Child, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ribs, spine and collar bones."""
    out = np.abs(x)
    turn = (y + child.rib_slope * out - 0.5 * (out - 0.5) ** 2) / child.ribs
    ribs = np.clip(np.cos(2 * np.pi * turn) * 1.6 - 0.6, 0, 1)
    ribs *= _inside(child.chest - 0.08 - out, 0.05) * _inside(out - 0.12, 0.05)
    ribs *= _inside(y + 0.85, 0.1) * _inside(0.6 - y, 0.3)
    spine = _inside(0.1 - out, 0.04) * (1 + 0.25 * np.cos(2 * np.pi * y / child.ribs))
    collar = _inside(0.035 - np.abs(y + 0.72 - 0.15 * out), 0.03)
    collar *= _inside(0.75 - out, 0.1) * _inside(out - 0.1, 0.05)
    return child.bone * (ribs + 1.3 * spine + 1.2 * collar)


def _cloud(
    lungs: np.ndarray, x: np.ndarray, y: np.ndarray, finding: Finding, rng: np.random.Generator
) -> np.ndarray:
    """The share of the air that inflammation has taken at every pixel."""
    height = x.shape[0]
    if finding == "bacteria":
        cloud = np.zeros_like(x)
        for _ in range(rng.integers(1, 3)):
            lung = lungs[rng.integers(2)]
            row, column = np.unravel_index(rng.choice(lung.size, p=_shares(lung)), lung.shape)
            across, along = rng.uniform(0.22, 0.4, 2)
            away = np.hypot((x - x[row, column]) / across, (y - y[row, column]) / along)
            cloud += rng.uniform(0.75, 1) * np.exp(-(away**3))
        return cloud * (1 + 0.25 * _noise(x.shape, height / 40, rng))
    if finding == "virus":
        patches = np.clip(_noise(x.shape, height / rng.uniform(18, 30), rng) + 0.6, 0, 2)
        near = np.exp(-(((np.abs(x) - 0.3) / 0.5) ** 2) - (y / 0.7) ** 2)
        return rng.uniform(0.55, 0.8) * patches * near
    return np.zeros_like(x)


def _shares(weights: np.ndarray) -> np.ndarray:
    flat = weights.ravel().astype(float)
    return flat / flat.sum()


def _noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field, mean 0 and deviation 1, grain `scale` pixels."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), max(scale, 0.5))
    return (field - field.mean()) / field.std()


def _expose(shadow: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The display of `shadow`: a random exposure, the side's letter as a mark, grain; uint8."""
    height, width = shadow.shape
    grey = np.clip(shadow, 0, 1) ** rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.15)
    grey += rng.uniform(-0.06, 0.06)
    if rng.random() < 0.6:
        size = max(height // 24, 2)
        row, column = int(rng.uniform(0.04, 0.2) * height), int(rng.uniform(0.03, 0.08) * width)
        grey[row : row + size, column : column + size // 2] = 1
    grey += rng.normal(0, 0.015, shadow.shape)
    return (255 * grey.clip(0, 1)).astype(np.uint8)
