"""Means of what is not NaN, against those of numpy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from dpmedbench import means


@pytest.fixture
def values():
    found = np.random.default_rng(0).random((3, 7, 4))
    found[found < 0.3] = np.nan
    return found


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_plain_means_are_those_of_numpy(values, axis):
    np.testing.assert_allclose(means.plain(values, axis), np.nanmean(values, axis))


def test_weighted_means_are_those_of_numpy(values):
    weights = np.random.default_rng(1).integers(0, 3, (5, 7)).astype(float)
    found = means.weighted("rp...,bp->br...", values, weights)
    assert found.shape == (5, 3, 4)
    for b, r, c in np.ndindex(found.shape):
        there = ~np.isnan(values[r, :, c])
        expected = np.average(values[r, there, c], weights=weights[b, there])
        assert found[b, r, c] == pytest.approx(expected, abs=1e-12)
    # an axis of one value is that of each draw
    each = means.weighted("bp...,bp->b...", values[:1], weights)
    np.testing.assert_allclose(each, found[:, 0], atol=1e-12)


def test_nothing_has_no_mean_and_no_warning(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(means.plain(np.full((2, 3), np.nan), 1)).all()
        assert np.isnan(means.plain(np.empty(0)))
        nowhere = np.zeros((2, 7))
        assert np.isnan(means.weighted("rp...,bp->br...", values, nowhere)).all()
