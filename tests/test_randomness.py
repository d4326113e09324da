"""Draws: their distribution, their independence, and what is kept of them."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from randomgen import ChaCha
from scipy import stats

from dpmedbench.privacy.randomness import Secure, Seeded

# a random test that is right fails once in 10^6 runs of the secure generator
CHANCE = 1e-6
CPU = torch.device("cpu")
STEPS, COORDINATES = 200, 1000


@pytest.fixture(params=["seeded", "secure"], scope="module")
def randomness(request):
    return Seeded(7) if request.param == "seeded" else Secure()


@pytest.fixture(scope="module")
def noise(randomness):
    """Noise as a run draws it: a tensor a step."""
    draws = [randomness.normal((10, 100), torch.float32, CPU) for _ in range(STEPS)]
    assert draws[0].shape == (10, 100)
    assert draws[0].dtype == torch.float32
    return torch.stack(draws).view(STEPS, COORDINATES).double().numpy()


def test_normals_are_normal(noise):
    edges = stats.norm.ppf(np.linspace(0, 1, 101))
    counts = np.histogram(noise, edges)[0]
    assert stats.chisquare(counts).pvalue > CHANCE
    assert CHANCE < stats.chi2.cdf((noise**2).sum(), noise.size) < 1 - CHANCE
    assert abs(noise.mean()) * np.sqrt(noise.size) < stats.norm.isf(CHANCE / 2)


def test_every_coordinate_and_every_step_has_unit_variance(noise):
    """Chi-square of each row and column; the smallest of n p-values is held against 1 / n."""
    for axis in (0, 1):
        squares = (noise**2).sum(axis)
        degrees = noise.shape[axis]
        assert stats.chi2.sf(squares.max(), degrees) * len(squares) > CHANCE
        assert stats.chi2.cdf(squares.min(), degrees) * len(squares) > CHANCE


def test_noise_is_independent_across_coordinates_and_steps(noise):
    """Correlations of all pairs of rows, and of columns, are those of independent normals."""
    for part in (noise, noise.T):
        rows, length = part.shape
        found = (part @ part.T / length)[np.triu_indices(rows, 1)] * np.sqrt(length)
        # the products of independent normals sum to variance 1 each, pairs uncorrelated
        assert abs((found**2).mean() - 1) < 0.05
        assert abs(found).max() < 8
    for lag in (1, 2, 3, 7, COORDINATES):
        ahead, behind = noise.ravel()[lag:], noise.ravel()[:-lag]
        score = (ahead * behind).sum() / np.sqrt(len(ahead))
        assert abs(score) < stats.norm.isf(CHANCE / 2)


def test_uniforms_are_uniform_doubles(randomness):
    found = randomness.uniform(100_000)
    assert found.dtype == torch.float64
    assert 0 <= found.min() <= found.max() < 1
    assert stats.kstest(found.numpy(), "uniform").pvalue > CHANCE
    # finer than float32 could tell
    assert (found != found.float().double()).double().mean() > 0.9


def test_uniforms_and_normals_of_one_seed_are_unrelated():
    randomness = Seeded(3)
    uniform = randomness.uniform(20_000).numpy()
    normal = randomness.normal((20_000,), torch.float64, CPU).numpy()
    assert stats.pearsonr(uniform, normal).pvalue > CHANCE


def test_seeded_repeats_itself_from_its_seed_and_from_its_state():
    one, two = Seeded(5), Seeded(5)
    assert torch.equal(one.normal((50,), torch.float32, CPU), two.normal((50,), torch.float32, CPU))
    one.uniform(3)
    stored = io.BytesIO()
    torch.save(one.state(), stored)
    stored.seek(0)
    expected = [one.permutation(20), one.normal((7,), torch.float32, CPU), one.uniform(4)]
    two.restore(torch.load(stored, weights_only=True))
    found = [two.permutation(20), two.normal((7,), torch.float32, CPU), two.uniform(4)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_seeded_draws_on_the_device():
    device = torch.device("cuda")
    one, two = Seeded(5, device), Seeded(5, device)
    state = one.state()
    first = one.normal((50,), torch.float32, device)
    assert first.device.type == "cuda"
    assert torch.equal(first, two.normal((50,), torch.float32, device))
    one.restore({name: value.cpu() for name, value in state.items()})
    assert torch.equal(first, one.normal((50,), torch.float32, device))


def test_chacha_gives_the_published_keystream():
    """Twenty rounds, key and counter 0: the first two blocks (RFC 8439, appendix A.1)."""
    blocks = ChaCha(key=0, rounds=20).random_raw(16).astype("<u8").tobytes().hex()
    assert blocks.startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    assert blocks[128:].startswith(
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    )


def test_secure_has_twenty_rounds_and_the_key_of_the_system(monkeypatch):
    monkeypatch.setattr("secrets.randbits", lambda bits: {256: 2**255 + 17}[bits])
    drawn = Secure().uniform(5).numpy()
    expected = np.random.Generator(ChaCha(key=2**255 + 17, rounds=20)).random(5)
    assert np.array_equal(drawn, expected)


def test_secure_keeps_nothing():
    one = Secure()
    assert one.state() == {}
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied or written"):
            leak(one)
    before = one.uniform(8)
    one.restore({})
    assert not torch.equal(one.uniform(8), before)
    assert not torch.equal(Secure().uniform(8), Secure().uniform(8))


def test_secure_normals_are_the_halved_sum_of_four_doubles(monkeypatch):
    monkeypatch.setattr("secrets.randbits", lambda bits: 1)
    generator = np.random.Generator(ChaCha(key=1, rounds=20))
    expected = sum(generator.standard_normal(6) for _ in range(4)) / 2
    found = Secure().normal((2, 3), torch.float64, CPU)
    assert found.numpy().ravel() == pytest.approx(expected, abs=0, rel=1e-15)
