"""The samplers draw as their accounting assumes, whatever the randomness."""

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpmedbench.privacy.randomness import Secure, Seeded
from dpmedbench.privacy.sampling import FixedSizeSampler, PoissonSampler, ShuffledSampler

# a random test that is right fails once in 10^6 runs of the secure generator
CHANCE = 1e-6


@pytest.fixture(params=["seeded", "secure"])
def randomness(request):
    return Seeded(1) if request.param == "seeded" else Secure()


def test_poisson_batches_are_binomial_and_independent(randomness):
    sampler = PoissonSampler(200, 0.1, randomness)
    drawn = torch.zeros(2000, 200)
    for row, indices in zip(drawn, sampler.epoch(2000), strict=True):
        row[indices] = 1
    sizes = drawn.sum(1).numpy()
    expected = stats.binom.pmf(np.arange(201), 200, 0.1) * 2000
    bins = [slice(0, 14), *(slice(k, k + 2) for k in range(14, 26, 2)), slice(26, 201)]
    counts = np.bincount(sizes.astype(int), minlength=201)
    test = stats.chisquare([counts[b].sum() for b in bins], [expected[b].sum() for b in bins])
    assert test.pvalue > CHANCE
    # any two records, and one record in two batches in a row: together as often as chance has it
    together = (drawn.T @ drawn).fill_diagonal_(0).sum() / (2000 * 200 * 199)
    assert together == pytest.approx(0.01, rel=0.03)
    again = (drawn[1:] * drawn[:-1]).mean()
    assert again == pytest.approx(0.01, rel=0.1)


def test_uniforms_are_held_against_the_rate_in_full_precision():
    drawn = torch.tensor([0.1 - 1e-15, 0.1], dtype=torch.float64)
    (batch,) = PoissonSampler(2, 0.1, SimpleNamespace(uniform=lambda n: drawn)).epoch(1)
    assert batch.tolist() == [0]


def test_fixed_batches_are_every_subset_as_likely_and_independent(randomness):
    subsets = {subset: number for number, subset in enumerate(combinations(range(6), 3))}
    sampler = FixedSizeSampler(6, 3, randomness)
    drawn = [subsets[tuple(sorted(batch.tolist()))] for batch in sampler.epoch(8000)]
    assert stats.chisquare(np.bincount(drawn, minlength=20)).pvalue > CHANCE
    pairs = np.zeros((20, 20))
    np.add.at(pairs, (drawn[:-1], drawn[1:]), 1)
    assert stats.chisquare(pairs.ravel()).pvalue > CHANCE


@given(records=st.integers(1, 60), share=st.floats(0.01, 1), steps=st.integers(1, 5))
def test_fixed_batches_are_of_one_size_and_distinct(records, share, steps):
    size = max(1, int(share * records))
    batches = list(FixedSizeSampler(records, size, Seeded(0)).epoch(steps))
    assert len(batches) == steps
    for batch in batches:
        assert batch.dtype == torch.int64
        assert len(batch.unique()) == size
        assert 0 <= batch.min() <= batch.max() < records


def test_a_shuffled_epoch_has_every_record_once(randomness):
    batches = list(ShuffledSampler(25, 10, randomness).epoch(3))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert sorted(torch.cat(batches).tolist()) == list(range(25))
    with pytest.raises(ValueError, match="4 steps are not one epoch"):
        next(ShuffledSampler(25, 10, randomness).epoch(4))


def test_every_order_of_a_shuffle_is_as_likely(randomness):
    sampler = ShuffledSampler(4, 4, randomness)
    codes = [
        int("".join(map(str, batch.tolist())), 4) for _ in range(4000) for batch in sampler.epoch(1)
    ]
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > CHANCE


@pytest.mark.parametrize("kind", [PoissonSampler, FixedSizeSampler, ShuffledSampler])
def test_samplers_go_on_from_the_state_of_their_randomness(kind):
    randomness = Seeded(2)
    sampler = kind(30, 0.3 if kind is PoissonSampler else 10, randomness)
    list(sampler.epoch(3))
    state = randomness.state()
    first = [batch.tolist() for batch in sampler.epoch(3)]
    randomness.restore(state)
    assert [batch.tolist() for batch in sampler.epoch(3)] == first
