"""Accountants against published and independent values, and against each other."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmedbench.privacy import accounting

DELTA = 1e-5


@pytest.mark.parametrize(
    ("sigma", "published"),
    [(0.3, 542.74), (0.5, 146.00), (0.7, 65.35), (1.0, 31.27)],
)
def test_prv_gives_the_published_epsilons_of_the_clipping_study(sigma, published):
    """66 training scans in batches of 10: q = 1/7 and 700 steps as the study counted them."""
    found = accounting.epsilon("prv", sigma, 1 / 7, 700, DELTA)
    assert found == pytest.approx(published, rel=0.004)  # the error allowance is 0.2 % of rdp


@pytest.mark.parametrize(("sigma", "steps"), [(0.5, 700), (1.0, 70), (2.0, 5000)])
def test_rdp_and_prv_are_those_of_opacus(sigma, steps):
    """What is kept between calls changes no value."""
    from opacus.accountants import PRVAccountant, RDPAccountant

    rdp, prv = RDPAccountant(), PRVAccountant()
    rdp.history = prv.history = [(sigma, 0.1, steps)]
    found = accounting.epsilon("rdp", sigma, 0.1, steps, DELTA)
    assert found == pytest.approx(rdp.get_epsilon(DELTA), rel=1e-12)
    error = max(accounting.MIN_ERROR, accounting.RELATIVE_ERROR * found)
    assert accounting.epsilon("prv", sigma, 0.1, steps, DELTA) == pytest.approx(
        prv.get_epsilon(DELTA, eps_error=error), rel=1e-12
    )


def test_rdp_agrees_with_dp_accounting():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    reference = RdpAccountant()
    reference.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 1000)
    found = accounting.epsilon("rdp", 1.0, 0.1, 1000, DELTA)
    assert found == pytest.approx(reference.get_epsilon(DELTA), rel=0.01)


def test_unsampled_gaussian_is_exact_under_gdp_and_bounded_by_the_rest():
    """q = 1: one Gaussian of sigma / sqrt(T), whose epsilon is known in closed form."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    sigma, steps = 5.0, 10
    mu = math.sqrt(steps) / sigma

    def excess(epsilon):
        return (
            norm.cdf(mu / 2 - epsilon / mu)
            - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
            - DELTA
        )

    exact = brentq(excess, 0, 50)
    assert accounting.epsilon("pld", sigma, 1.0, steps, DELTA) == pytest.approx(exact, rel=1e-3)
    assert accounting.epsilon("prv", sigma, 1.0, steps, DELTA) == pytest.approx(exact, abs=0.03)
    assert accounting.epsilon("rdp", sigma, 1.0, steps, DELTA) >= exact


@settings(max_examples=8, deadline=None)
@given(
    sigma=st.floats(0.5, 4),
    rate=st.floats(0.01, 0.5),
    steps=st.integers(1, 500),
)
def test_bounds_are_ordered_and_grow(sigma, rate, steps):
    """rdp is the loosest bound; pld and prv agree; more steps or less noise cost more."""
    pld = accounting.epsilon("pld", sigma, rate, steps, DELTA)
    prv = accounting.epsilon("prv", sigma, rate, steps, DELTA)
    rdp = accounting.epsilon("rdp", sigma, rate, steps, DELTA)
    assert pld <= rdp * 1.001 + 1e-6
    assert pld - 0.02 <= prv <= pld + max(0.01, 0.002 * rdp) * 2 + 0.01
    assert accounting.epsilon("pld", sigma, rate, steps + 10, DELTA) >= pld
    assert accounting.epsilon("pld", sigma * 1.1, rate, steps, DELTA) <= pld


def test_nothing_done_costs_nothing():
    assert accounting.epsilon("prv", 1.0, 0.1, 0, DELTA) == 0


def test_gdp_without_a_root_is_not_a_number():
    assert math.isnan(accounting.epsilon("gdp", 0.3, 0.1, 1000, DELTA))


@pytest.mark.parametrize("accountant", ["rdp", "pld", "prv", "gdp"])
@pytest.mark.parametrize("target", [1.0, 8.0, 200.0])
def test_calibration_spends_the_budget_and_not_more(accountant, target):
    sigma = accounting.calibrate(target, accountant, 10 / 66, 70, DELTA)
    assert accounting.epsilon(accountant, sigma, 10 / 66, 70, DELTA) <= target
    assert accounting.epsilon(accountant, sigma * 0.99, 10 / 66, 70, DELTA) > target * 0.99


def test_calibration_refuses_what_no_noise_can_give():
    with pytest.raises(ValueError, match="above 1000"):
        accounting.calibrate(1e-4, "rdp", 1.0, 100_000, DELTA)
