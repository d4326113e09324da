"""Drawn retinas: OCT B-scans of eyes that never were, with the truth about them.

Lengths are micrometres: x along a B-scan, y from scan to scan (both 0 at the fovea), z downwards.
Thicknesses and reflectivities are round numbers in the range that anatomy books and clinical
pictures show; none is fitted to a dataset, so a phantom tells nothing about any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpmedbench.errors import UserError

SPAN_X, SPAN_Y = 8600.0, 7200.0
OFFICIAL_HEIGHT, OFFICIAL_DEPTH = 496, 1920.0
SMALLEST = 48

# Grey level of the display at u: 0..7 is the place inside the seven layers, then 100 um a unit.
PROFILE = (
    # u, grey
    (-0.01, 0), (0.0, 105), (0.15, 142), (0.8, 126),  # vitreous | NFL
    (1.05, 98), (1.9, 88),  # GCL-IPL
    (2.1, 58), (2.85, 56),  # INL
    (3.1, 80), (3.85, 76),  # OPL
    (4.1, 50), (4.72, 47), (4.84, 62), (4.95, 47),  # ONL, with the external limiting membrane
    (5.1, 150), (5.4, 172), (5.75, 104), (5.95, 108),  # ISE
    (6.15, 172), (6.6, 190), (6.95, 150),  # OS-RPE
    (7.1, 70), (7.4, 80), (8.2, 66), (9.2, 46), (10.5, 30), (12.5, 18), (16.0, 0),  # choroid
)  # fmt: skip
STIFFNESS = 280.0  # a layer bends no sharper than a dome of this radius
WALL = 13.0  # between two pockets
FLUID_GREY = 22.0
NOISE_GREY = 31.0
INL, OPL, ONL = 2, 3, 4


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye. Arrays have one entry a layer, pocket or vessel."""

    thickness: np.ndarray  # (7,) factor on the normal thickness of each layer
    side: float  # +1 or -1: on which side the optic nerve lies
    depth: float  # of the retina's middle, as a share of the picture
    tilt: np.ndarray  # (2,) slope along x and y
    bend: float  # sagitta at the end of a B-scan, um
    signal: float
    oedema: float  # 0..1
    layer: np.ndarray  # (K,) host layer of each fluid pocket
    centre: np.ndarray  # (K, 2) x, y
    radius: np.ndarray  # (K, 2) along x, y
    rise: np.ndarray  # (K,) height
    place: np.ndarray  # (K,) 0..1, from the top to the bottom of the host layer
    vessel: np.ndarray  # (V, 3) path x = a + b y + c y^2
    vessel_radius: np.ndarray  # (V,)
    vessel_shadow: np.ndarray  # (V,) share of the light kept back
    texture: np.ndarray  # (256, 1024) of the choroid, mean 0, deviation 1

    @classmethod
    def born(cls, rng: np.random.Generator) -> Eye:
        """A new eye."""
        from scipy.ndimage import gaussian_filter

        oedema = rng.uniform(0.15, 1.0)
        pockets = 4 + rng.poisson(34 * oedema)
        spread = 350 + 900 * rng.random((pockets, 1))
        centre = rng.normal(0, 1, (pockets, 2)) * spread * (1, 1.4)
        if oedema > 0.5:  # it gathers at the fovea; a milder one leaves the pit
            centre[0] = rng.normal(0, 120, 2)
        layer = rng.choice([INL, OPL, ONL], pockets, p=[0.35, 0.1, 0.55])
        rise = rng.uniform(40, 100, pockets) + 200 * oedema * rng.beta(1.2, 2.5, pockets)
        rise[0] = 100 + 260 * oedema**2
        vessels = rng.integers(9, 15)
        paths = np.stack(
            [rng.uniform(-4200, 4200, vessels), rng.normal(0, 0.35, vessels),
             rng.normal(0, 4e-5, vessels)], axis=1)  # fmt: skip
        texture = gaussian_filter(rng.standard_normal((256, 1024)), (3.5, 4.5), mode="wrap")
        return cls(
            thickness=rng.normal(1, 0.07, 7).clip(0.8, 1.2),
            side=rng.choice([-1.0, 1.0]),
            depth=rng.uniform(0.38, 0.48),
            tilt=rng.normal(0, 0.025, 2),
            bend=rng.uniform(10, 110),
            signal=rng.uniform(0.88, 1.08),
            oedema=oedema,
            layer=layer,
            centre=centre,
            radius=rise[:, None] * rng.uniform(0.55, 1.4, (pockets, 1)) * (1, 1.5) + (20, 60),
            rise=rise,
            place=rng.uniform(0.2, 0.8, pockets),
            vessel=paths,
            vessel_radius=rng.uniform(22, 60, vessels),
            vessel_shadow=rng.uniform(0.12, 0.45, vessels),
            texture=texture / texture.std(),
        )


@dataclass(frozen=True)
class Scan:
    """A drawn B-scan and its truth: image uint8 (H, W), boundaries float64 (8, W) in whole rows
    (the first row under each), fluid float64 (H, W): 0, or the number of the pocket."""

    image: np.ndarray
    boundaries: np.ndarray
    fluid: np.ndarray


def draw(eye: Eye, y: float, image_size: tuple[int, int], rng: np.random.Generator) -> Scan:
    """Draw the B-scan of `eye` at height `y` (um from the fovea) with (H, W) pixels.

    A picture with fewer rows looks into a shallower depth, so that thin layers stay some pixels
    thick; it always spans 8.6 mm. UserError under 48 pixels a side.
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    height, width = image_size
    if min(image_size) < SMALLEST:
        raise UserError(
            f"phantom image_size: found {height} x {width}, expected at least {SMALLEST} a side."
        )
    depth = max(OFFICIAL_DEPTH * (height / OFFICIAL_HEIGHT) ** 0.5, 900.0)
    pitch = depth / height
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * SPAN_X
    z = (np.arange(height, dtype=np.float32) * pitch)[:, None]

    layers = _thickness(eye, x, y)
    wave = gaussian_filter1d(rng.standard_normal((7, width)), width / 24, axis=1, mode="nearest")
    layers *= (1 + 0.25 * wave).clip(0.7, 1.3)
    edges = _place(eye, layers, x, y, depth, rng)
    layers = np.diff(edges, axis=0)
    fluid = _pockets(eye, edges, layers, x, y, z)

    inside = (z - edges[:-1, None]) / layers[:, None]
    u = np.where(z < edges[0], -1.0, np.clip(inside, 0, 1, out=inside).sum(axis=0))
    u += np.maximum(z - edges[-1], 0) / 100
    knots, greys = np.array(PROFILE, np.float32).T
    grey = np.interp(u, knots, greys)
    grey[fluid] = FLUID_GREY
    _texture_choroid(grey, u, eye, rng)
    _shade(grey, u, eye, x, y, rng)
    grey = gaussian_filter(grey, (0.45, 0.7))
    image = _speckle(grey * eye.signal, rng)
    _register(image, edges / pitch, rng)
    return Scan(image, np.rint(edges / pitch), _number(fluid))


def regrade(scan: Scan, rng: np.random.Generator) -> Scan:
    """The same scan as another person would grade it: other by about a row, pockets by a rim."""
    from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter1d

    height, width = scan.image.shape
    drift = gaussian_filter1d(rng.standard_normal((8, width)), 6, axis=1) * 3.5
    boundaries = np.maximum.accumulate(np.rint(scan.boundaries + drift), axis=0)
    change = rng.choice([binary_dilation, binary_erosion])
    return Scan(scan.image, boundaries.clip(0, height), _number(change(scan.fluid > 0)))


def _thickness(eye: Eye, x: np.ndarray, y: float) -> np.ndarray:
    """Thickness of the seven layers along a B-scan, (7, W)."""
    from scipy.ndimage import gaussian_filter1d

    r = np.hypot(x, y)
    pit = np.exp(-((r / 520) ** 2))
    rim = np.exp(-(((r - 1150) / 650) ** 2))
    nasal = np.clip(eye.side * x / 3500, 0, 1) + np.clip(abs(y) / 6000, 0, 1)
    layers = np.stack([
        34 * (1 - 0.72 * pit) + 8 * rim + 30 * nasal,
        (66 - 4e-3 * r) * (1 - 0.85 * pit) + 32 * rim,
        37 * (1 - 0.72 * pit) + 5 * rim,
        34 * (1 - 0.5 * pit),
        88 - 2e-3 * r + 34 * pit,
        40 + 6 * pit,
        28 + 0 * r,
    ])  # fmt: skip
    layers *= eye.thickness[:, None]
    swollen = eye.oedema * np.exp(-((r / 1900) ** 2))
    layers[[1, INL, ONL]] += np.array([[20], [12], [35]]) * swollen
    # A pocket spreads its layer further than it reaches itself, and neighbours share the space.
    swell = np.zeros_like(layers)
    for k, host in enumerate(eye.layer):
        reach = np.maximum(1.3 * eye.radius[k], STIFFNESS)
        far = ((x - eye.centre[k, 0]) / reach[0]) ** 2 + ((y - eye.centre[k, 1]) / reach[1]) ** 2
        swell[host] = np.maximum(swell[host], eye.rise[k] * np.exp(-far / 2.6))
    swell = gaussian_filter1d(swell, STIFFNESS / 3 * len(x) / SPAN_X, axis=1, mode="nearest")
    return (layers + swell).astype(np.float32)


def _place(eye, layers, x, y, depth, rng) -> np.ndarray:
    """Depth of the eight boundaries, (8, W), somewhere in the picture and whole."""
    bruch = x * (eye.tilt[0] + rng.normal(0, 0.002)) + y * eye.tilt[1] * 0.3
    bruch = bruch - eye.bend * ((x / SPAN_X * 2) ** 2 - 0.5)
    edges = bruch - np.concatenate([layers[::-1].cumsum(axis=0)[::-1], np.zeros((1, len(x)))])
    edges *= min(1.0, 0.85 * depth / np.ptp(edges))  # a swollen retina in a small picture
    top, bottom = edges.min(), edges.max()
    shift = eye.depth * depth - edges.mean() + rng.normal(0, 8)
    shift = min(max(shift, 0.05 * depth - top), 0.93 * depth - bottom)
    return (edges + shift).astype(np.float32)


def _pockets(eye, edges, layers, x, y, z) -> np.ndarray:
    """Where there is fluid, bool (H, W): ellipsoids cut at `y`, each inside its host layer."""
    fluid = np.zeros((len(z), len(x)), bool)
    for k, host in enumerate(eye.layer):
        far = ((x - eye.centre[k, 0]) / eye.radius[k, 0]) ** 2
        far = far + ((y - eye.centre[k, 1]) / eye.radius[k, 1]) ** 2
        columns = far < 1
        if not columns.any():
            continue
        # Never closer to the next layer than a thin wall.
        half = 0.65 * eye.rise[k] * np.sqrt(1 - far[columns])
        half = np.minimum(half, 0.46 * layers[host, columns])
        middle = edges[host, columns] + layers[host, columns] / 2
        middle += (eye.place[k] - 0.5) * 0.9 * (layers[host, columns] - 2 * half)
        away = np.abs(z - middle) - half
        fluid[:, columns] = np.where(away < WALL, away < 0, fluid[:, columns])
    return fluid


def _texture_choroid(grey, u, eye, rng) -> None:
    """Vessels of the choroid: blotches that move from scan to scan. In place."""
    height, width = grey.shape
    rows = np.linspace(0, 255, height).astype(int)[:, None]
    columns = (np.linspace(0, 511, width) + rng.integers(1024)).astype(int)[None] % 1024
    below = u > 7
    gain = np.clip(1 + 0.22 * eye.texture[rows, columns], 0.45, 1.5)
    grey[below] *= gain[below]


def _shade(grey, u, eye, x, y, rng) -> None:
    """Vessels with their shadows, exudates, and light that varies along the scan. In place."""
    from scipy.ndimage import gaussian_filter1d

    height, width = grey.shape
    light = gaussian_filter1d(rng.standard_normal(width), width / 16, mode="nearest")
    fine = gaussian_filter1d(rng.standard_normal(width), width / 300)
    grey *= (1 + 0.35 * light + 0.06 * fine).clip(0.75, 1.2)
    kept = np.ones(width)
    for path, radius, shadow in zip(eye.vessel, eye.vessel_radius, eye.vessel_shadow, strict=True):
        at = path @ (1, y, y * y)
        if np.hypot(at, y) > 450:  # the fovea has no vessels
            here = np.exp(-(((x - at) / radius) ** 2))
            kept *= 1 - shadow * here
            grey += 45 * here * ((u > 0.3) & (u < 1.3))
    grey *= np.where(u > 1.2, kept, 1)
    for _ in range(rng.poisson(14 * eye.oedema)):
        column = int(np.clip(rng.normal(width / 2, width / 8), 1, width - 2))
        row = int(np.searchsorted(u[:, column], rng.uniform(2, 4.5)))
        if 1 < row < height - 2:
            reach = 1 if height < 300 else 2
            spot = slice(row - reach, row + reach), slice(column - 1, column + 1)
            grey[spot] = np.maximum(grey[spot], rng.uniform(110, 210))
            grey[row + reach :, spot[1]] *= 0.85


def _speckle(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiplicative speckle, detector noise and the fourth-root display; uint8 (H, W).

    Speckle is the power of a correlated circular Gaussian field, two looks averaged; the noise
    floor is subtracted, which leaves the black specks of the vitreous.
    """
    from scipy.ndimage import gaussian_filter

    power = (grey.astype(np.float32) / 255) ** 4
    field = rng.standard_normal((4, *grey.shape), dtype=np.float32)
    field = gaussian_filter(field, (0, 0.45, 0.75), truncate=2)
    speckle = np.square(field).sum(axis=0)
    power *= speckle / speckle.mean()
    noise = (NOISE_GREY / 255) ** 4
    power += noise * (rng.standard_exponential(grey.shape, dtype=np.float32) - 0.25)
    return (255 * np.sqrt(np.sqrt(power.clip(0, 1)))).astype(np.uint8)


def _register(image: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> None:
    """White where a scan that was turned into place had no pixels. In place."""
    height, width = image.shape
    if rng.random() < 0.4:
        return
    start, slope = rng.normal(0, 0.02 * height), rng.normal(0, 0.035 * height)
    edge = start + slope * np.linspace(-1, 1, width)
    row = np.arange(height)[:, None]
    image[
        (row < np.minimum(edge, rows[0] - 4)) | (row >= np.maximum(height + edge, rows[-1] + 4))
    ] = 255


def _number(fluid: np.ndarray) -> np.ndarray:
    """Number the pockets from 1; what is under four pixels nobody would draw."""
    from scipy.ndimage import label

    pockets, _ = label(fluid)
    sizes = np.bincount(pockets.ravel())
    keep = sizes >= 4
    keep[0] = False
    return np.where(keep, keep.cumsum(), 0)[pockets].astype(np.float64)
