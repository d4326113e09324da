"""The noise on images: its distribution, drawn once, and all else as it was."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import laplace as exact
from toy_store import COLOUR, LABELS, SPEC, images, perturbed, written

from dpmedbench import store
from dpmedbench.inputs import to_input
from dpmedbench.privacy import local
from dpmedbench.privacy.randomness import Seeded

# The noise


@pytest.mark.parametrize("beta", [4 / local.STEPS, 1.0, 2.0, 4.0])
def test_what_is_stored_minus_the_image_is_laplace(beta, tmp_path):
    """Kolmogorov-Smirnov at the edges of the steps that the noise is rounded to."""
    source = written(tmp_path, size=(96, 96))
    noise = (images(perturbed(source, beta=beta)) - images(source)).ravel()
    steps, counts = np.unique(noise, return_counts=True)
    found = counts.cumsum() / len(noise)
    distance = np.abs(found - exact.cdf((steps + 0.5) / (local.STEPS * beta))).max()
    assert distance < 1.63 / math.sqrt(len(noise))  # one false alarm in a hundred seeds
    assert noise.std() / local.STEPS == pytest.approx(math.sqrt(2) * beta, rel=0.02)


def test_every_number_has_noise_of_its_own(tmp_path):
    """No correlation between neighbours, channels or images."""
    source = written(tmp_path, COLOUR, size=(32, 32))
    noise = images(perturbed(source)) - images(source)
    for one, other in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_no_value_stored_tells_more_of_a_pixel_than_epsilon(beta):
    """All pairs of pixel values, all values that can be stored, the clipped ones among them."""
    limits = np.iinfo(np.int16)
    values, pixels = np.arange(limits.min, limits.max + 1), np.arange(0, 256, 5)
    edges = (np.concatenate([values, [limits.max + 1]]) - 0.5)[:, None] - pixels
    edges[0], edges[-1] = -np.inf, np.inf
    scale = local.STEPS * beta
    low, high = edges[:-1], edges[1:]
    mirrored = low > 0  # where the distribution function has no digits left
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    chances = exact.cdf(high, scale=scale) - exact.cdf(low, scale=scale)
    worst = (chances.max(1) / chances.min(1)).max()
    promised = local.promise("laplace", beta, 1)["epsilon_per_pixel"]
    assert math.log(worst) <= promised * (1 + 1e-9)
    assert math.log(worst) > 0.99 * promised


def test_the_scalar_leaves_every_difference_as_it_was(tmp_path):
    source = written(tmp_path)
    noise = images(perturbed(source, mode="scalar_per_image", beta=2.0)) - images(source)
    assert (noise == noise[:, :1, :1]).all()
    assert len(set(noise[:, 0, 0])) == len(noise)


def test_values_beyond_what_is_stored_are_clipped():
    largest = torch.tensor([0.0] * 4 + [1 - 2**-53] * 4, dtype=torch.float64)
    draws = SimpleNamespace(uniform=lambda n: largest[:n])
    image = np.full((2, 2), 255, np.uint8)
    assert (local.perturbed(image, "laplace", 1e3, draws) == 32767).all()


def test_the_laplace_numbers_are_differences_of_exponentials():
    found = local.laplace((50_000,), Seeded(0))
    assert np.quantile(found, [0.25, 0.5, 0.75]) == pytest.approx(
        exact.ppf([0.25, 0.5, 0.75]), abs=0.03
    )


# Once an image


def test_the_noise_is_drawn_once_and_belongs_to_its_name(tmp_path):
    source = written(tmp_path)
    ways = [{}, {"seed": 1}, {"beta": 2.0}, {"mode": "scalar_per_image"}, {"dataset": "other"}]
    paths = [perturbed(source, f"{n}.h5", **way) for n, way in enumerate(ways)]
    drawn, digests = [images(path) for path in paths], set()
    for path in paths:
        with store.open_store(path) as opened:
            digests.add(opened.digest)
    assert len(digests) == len(ways)  # or a cell would take up a checkpoint of another noise
    assert (tmp_path / "0.h5").read_bytes() == perturbed(source, "again.h5").read_bytes()
    noise = [found - images(source) for found in drawn]
    for one, other in itertools.combinations(noise, 2):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5
    # of n and 2 n on one image anybody computes it
    assert abs(np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1]) < 4 / math.sqrt(noise[0].size)


def test_secure_noise_repeats_nothing_and_says_so(tmp_path):
    pytest.importorskip("randomgen")
    source = written(tmp_path)
    paths = [perturbed(source, name, seed=None) for name in ("one.h5", "two.h5")]
    assert (images(paths[0]) != images(paths[1])).mean() > 0.9
    with store.open_store(paths[0]) as opened:
        assert "secure" in opened.provenance["perturbation"]["randomness"]


@pytest.mark.parametrize("spec", [SPEC, LABELS, COLOUR], ids=["masks", "labels", "colour"])
def test_all_but_the_images_is_as_it_was(spec, tmp_path):
    source = written(tmp_path, spec)
    with store.open_store(source) as clean, store.open_store(perturbed(source)) as noisy:
        everything = range(clean.num_records)
        np.testing.assert_array_equal(clean.read(everything)[1], noisy.read(everything)[1])
        for name in ("patients", "sources", "official"):
            np.testing.assert_array_equal(getattr(clean, name), getattr(noisy, name))
        same = ("name", "task", "classes", "channels", "num_records", "image_size")
        assert [getattr(clean, n) for n in same] == [getattr(noisy, n) for n in same]
        assert noisy.digest != clean.digest
        assert noisy.provenance["perturbation"]["of"] == clean.digest
        found = noisy.read([0])[0]
    assert found.dtype == np.int16
    assert to_input(found).shape == (1, spec.channels, 24, 20)
    assert float(to_input(found).abs().max()) > 1
