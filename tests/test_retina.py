"""Drawn retinas: their anatomy is in order and the picture shows it."""

from __future__ import annotations

import numpy as np
import pytest

from dpmedbench.errors import UserError
from dpmedbench.phantoms import retina

SIZE = (160, 192)


def some(count: int, size=SIZE):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        eye = retina.Eye.born(rng)
        yield eye, retina.draw(eye, rng.uniform(-1500, 1500), size, rng)


@pytest.mark.parametrize("size", [(48, 48), SIZE, (496, 768)])
def test_boundaries_are_whole_rows_in_order_inside_the_picture(size):
    for _, scan in some(6, size):
        assert scan.image.shape == scan.fluid.shape == size
        assert scan.image.dtype == np.uint8
        assert scan.boundaries.shape == (8, size[1])
        assert (scan.boundaries == np.rint(scan.boundaries)).all()
        assert (np.diff(scan.boundaries, axis=0) >= 0).all()
        assert scan.boundaries.min() > 0
        assert scan.boundaries.max() < size[0]


def test_pockets_lie_in_the_retina_and_are_numbered_without_gaps():
    pockets = 0
    for _, scan in some(12):
        numbers = np.unique(scan.fluid)
        assert numbers.tolist() == list(range(len(numbers)))
        pockets += len(numbers) - 1
        rows, columns = np.nonzero(scan.fluid)
        # Between the INL and the ONL, give or take the rounding to rows.
        assert (rows >= scan.boundaries[2, columns] - 1).all()
        assert (rows <= scan.boundaries[5, columns] + 1).all()
    assert pockets > 12


def test_the_picture_shows_the_anatomy():
    grey = {name: [] for name in ("vitreous", "NFL", "INL", "ONL", "RPE", "fluid")}
    row = np.arange(SIZE[0])[:, None]
    for _, scan in some(10):
        edges = scan.boundaries
        dry = (scan.fluid == 0) & (scan.image < 255)
        grey["vitreous"].append(scan.image[(row < edges[0] - 2) & dry].mean())
        for name, layer in (("NFL", 0), ("INL", 2), ("ONL", 4), ("RPE", 6)):
            inside = (row >= edges[layer]) & (row < edges[layer + 1]) & dry
            grey[name].append(scan.image[inside].mean())
        if (scan.fluid > 0).sum() > 50:
            grey["fluid"].append(scan.image[scan.fluid > 0].mean())
    mean = {name: np.mean(values) for name, values in grey.items()}
    assert mean["vitreous"] < mean["fluid"] + 12 < mean["ONL"] + 12
    assert mean["fluid"] + 10 < mean["ONL"] + 5 < mean["INL"] + 5 < mean["NFL"] < mean["RPE"]


def test_oedema_pushes_the_layers_and_its_absence_leaves_a_pit():
    x = np.linspace(-0.5, 0.5, 400) * retina.SPAN_X
    eye = retina.Eye.born(np.random.default_rng(3))
    healthy = retina.Eye(**{**vars(eye), "oedema": 0.0, "layer": eye.layer[:0]})
    total = retina._thickness(healthy, x, 0.0).sum(axis=0)
    fovea, rim = total[200], total[np.abs(np.abs(x) - 1150).argmin()]
    assert 130 < fovea < 0.75 * rim < 300
    far = retina._thickness(healthy, x, 3000.0).sum(axis=0)
    assert far[200] > fovea + 60  # the pit is at the fovea, not in every scan
    assert (retina._thickness(eye, x, 0.0) >= retina._thickness(healthy, x, 0.0) - 1e-3).all()


def test_patients_differ_and_a_seed_repeats():
    (first, one), (second, two) = list(some(2))
    assert abs(first.thickness - second.thickness).max() > 0.01
    assert (one.image != two.image).mean() > 0.5
    np.testing.assert_array_equal(next(some(1))[1].image, one.image)


def test_the_second_grader_is_close_but_not_the_same():
    _, scan = next(some(1))
    other = retina.regrade(scan, np.random.default_rng(0))
    shift = np.abs(other.boundaries - scan.boundaries)
    assert 0 < shift.mean() < 2
    assert (np.diff(other.boundaries, axis=0) >= 0).all()


def test_a_picture_too_small_to_hold_layers_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="image_size: found 32 x 192"):
        retina.draw(retina.Eye.born(rng), 0.0, (32, 192), rng)
