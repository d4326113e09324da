"""Accountants against published, exact and independent values, and against each other."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import binom, norm

from dpmedbench.privacy import accounting

DELTA = 1e-5


def epsilon(accountant, sigma, rate, steps, delta=DELTA, **options):
    """Epsilon at one noise level."""
    return accounting.epsilon(accountant, ((sigma, steps),), rate, delta, **options)


@pytest.mark.parametrize(
    ("sigma", "published"),
    [(0.3, 542.74), (0.5, 146.00), (0.7, 65.35), (1.0, 31.27)],
)
def test_prv_gives_the_published_epsilons_of_the_clipping_study(sigma, published):
    """66 training scans in batches of 10: q = 1/7 and 700 steps as the study counted them."""
    found = epsilon("prv", sigma, 1 / 7, 700)
    assert found == pytest.approx(published, rel=0.004)  # the error allowance is 0.2 % of rdp


def test_rdp_of_88_records_in_batches_of_10():
    assert epsilon("rdp", 1.0, 10 / 88, 880) == pytest.approx(29.3, abs=0.05)


def test_gdp_is_an_approximation_that_may_promise_too_much():
    """N = 580, sigma 0.7: it lies under both of the bounds that are tight to 0.5 %."""
    gdp, prv, pld = (epsilon(name, 0.7, 10 / 580, 5800) for name in ("gdp", "prv", "pld"))
    assert gdp == pytest.approx(19.6, abs=0.05)
    assert prv == pytest.approx(19.8, abs=0.1)
    assert gdp < pld < prv


@pytest.mark.parametrize(("sigma", "steps"), [(0.5, 700), (1.0, 70), (2.0, 5000)])
def test_rdp_and_prv_are_those_of_opacus(sigma, steps):
    """What is kept between calls, and the finer grid, change no value."""
    from opacus.accountants import PRVAccountant, RDPAccountant

    rdp, prv = RDPAccountant(), PRVAccountant()
    rdp.history = prv.history = [(sigma, 0.1, steps)]
    found = epsilon("rdp", sigma, 0.1, steps)
    assert found == pytest.approx(rdp.get_epsilon(DELTA), rel=1e-12)
    error = max(accounting.MIN_ERROR, accounting.RELATIVE_ERROR * found)
    assert epsilon("prv", sigma, 0.1, steps) == pytest.approx(
        prv.get_epsilon(DELTA, eps_error=error), rel=1e-4
    )


def test_rdp_agrees_with_dp_accounting():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    reference = RdpAccountant()
    reference.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 1000)
    assert epsilon("rdp", 1.0, 0.1, 1000) == pytest.approx(reference.get_epsilon(DELTA), rel=0.01)


@pytest.mark.parametrize("history", [((5.0, 10),), ((1.0, 1), (2.0, 3), (4.0, 2)), ((0.1, 1),)])
def test_whole_batches_are_one_gaussian_whose_epsilon_is_known(history):
    """q = 1: mu^2 = sum of 1 / sigma^2, and epsilon solves Balle & Wang 2018, theorem 8."""
    mu = math.sqrt(sum(steps / sigma**2 for sigma, steps in history))

    def excess(epsilon):
        return (
            norm.logcdf(mu / 2 - epsilon / mu)
            + math.log1p(
                -math.exp(
                    epsilon
                    + norm.logcdf(-mu / 2 - epsilon / mu)
                    - norm.logcdf(mu / 2 - epsilon / mu)
                )
            )
            - math.log(DELTA)
        )

    exact = brentq(excess, 0.01, mu**2 / 2 + 6 * mu)
    for accountant in ("prv", "pld", "gdp"):
        assert accounting.epsilon(accountant, history, 1.0, DELTA) == pytest.approx(exact, rel=1e-6)
    assert accounting.epsilon("rdp", history, 1.0, DELTA) >= exact


def test_prv_and_pld_agree_where_exponentials_overflow():
    prv, pld = (epsilon(name, 0.24, 10 / 88, 880) for name in ("prv", "pld"))
    assert pld > 800
    assert prv == pytest.approx(pld, rel=2e-3)


def epsilon_of_little_noise(sigma, rate, steps, delta):
    """What holds as sigma goes to 0: each step shows whether the record was in it.

    With the record in k steps the privacy loss is normal around k / (2 sigma^2), of variance
    k / sigma^2; by the probabilities of those steps it is a little less.
    """
    k = np.arange(1, steps + 1)
    mean = k / (2 * sigma**2) + k * math.log(rate) + (steps - k) * math.log(1 - rate)

    def excess(epsilon):
        return binom.pmf(k, steps, rate) @ norm.sf(epsilon, mean, np.sqrt(k) / sigma) - delta

    return brentq(excess, 0, mean[-1] + 10 * math.sqrt(steps) / sigma)


@pytest.mark.parametrize("sigma", [0.045, 0.03, 0.025, 0.02, 0.01, 0.005])
@pytest.mark.parametrize(("rate", "steps", "delta"), [(1 / 6, 12, 0.01), (0.1, 100, 1e-4)])
def test_prv_and_pld_are_bounds_where_there_is_hardly_any_noise(sigma, rate, steps, delta):
    """A loss above 709 in one step is more than Opacus' distribution has: prv was too small."""
    exact = epsilon_of_little_noise(sigma, rate, steps, delta)
    rdp, prv, pld = (epsilon(name, sigma, rate, steps, delta) for name in ("rdp", "prv", "pld"))
    assert exact * 0.998 <= pld <= exact * 1.005
    assert pld * 0.999 <= prv <= pld * 1.001 + 2 * accounting.MAX_ERROR
    assert prv <= rdp


def test_one_step_of_little_noise_is_bounded_among_others():
    history = ((1.0, 5), (0.02, 7))
    prv, pld = (accounting.epsilon(name, history, 1 / 6, 0.01) for name in ("prv", "pld"))
    assert prv == pytest.approx(pld, rel=1e-3)
    assert prv > epsilon("pld", 0.02, 1 / 6, 7, 0.01)


def test_an_epsilon_of_many_thousands_takes_neither_minutes_nor_gigabytes():
    """prv asked for a grid of 2^30 losses."""
    prv, pld = (epsilon(name, 0.05, 10 / 580, 5800) for name in ("prv", "pld"))
    assert prv == pytest.approx(pld, rel=1e-3)
    assert pld == pytest.approx(28358.5, rel=1e-3)  # on a grid ten times finer


def test_pld_is_finite_where_the_exponential_of_epsilon_is_hardly_a_number():
    history = ((0.0378, 2), (0.2289, 2))
    prv, pld = (accounting.epsilon(name, history, 4 / 7, 0.128) for name in ("prv", "pld"))
    assert 709 < pld == pytest.approx(prv, rel=3e-3)


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
@pytest.mark.parametrize("sigma", [40.0, 80.0, 200.0, 1e4, 2e8, 1e12])
@pytest.mark.parametrize(("rate", "steps"), [(1 / 6, 12), (10 / 88, 900)])
def test_where_noise_drowns_all_next_to_nothing_is_spent(accountant, sigma, rate, steps):
    found = epsilon(accountant, sigma, rate, steps, 0.01)
    assert 0 <= found <= 0.12


def test_pld_needs_no_endless_grid_where_epsilon_begins():
    sigma = brentq(lambda s: accounting._rdp(((s, 12),), 1 / 6, 0.01) - 1e-9, 5, 40, rtol=1e-14)
    assert 0 <= epsilon("pld", sigma, 1 / 6, 12, 0.01) <= 1e-6


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("steps", [10, 1000])
@pytest.mark.parametrize("rate", [0.01, 0.15])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_bounds_are_ordered_on_a_grid(sigma, rate, steps, delta):
    """rdp is the loosest; prv lies above pld by at most twice the error it allows for."""
    rdp, prv, pld = (epsilon(name, sigma, rate, steps, delta) for name in ("rdp", "prv", "pld"))
    error = max(accounting.MIN_ERROR, accounting.RELATIVE_ERROR * rdp)
    assert pld <= rdp * 1.001
    assert pld * 0.998 - 2e-3 <= prv <= pld * 1.002 + 2 * error
    assert prv <= rdp + 2 * error


@settings(max_examples=6, deadline=None)
@given(
    sigma=st.floats(0.5, 4),
    rate=st.floats(0.01, 0.5),
    steps=st.integers(1, 500),
    accountant=st.sampled_from(accounting.ACCOUNTANTS),
)
def test_more_steps_more_data_or_less_noise_cost_more(sigma, rate, steps, accountant):
    spent = epsilon(accountant, sigma, rate, steps)
    slack = 1e-3 * spent + 1e-3
    assert epsilon(accountant, sigma, rate, steps + 10) >= spent - slack
    assert epsilon(accountant, sigma * 1.1, rate, steps) <= spent + slack
    assert epsilon(accountant, sigma, rate * 1.1, steps) >= spent - slack


# --- histories of several noise levels ---


@settings(max_examples=6, deadline=None)
@given(
    sigma=st.floats(0.5, 4),
    rate=st.floats(0.01, 0.5),
    parts=st.lists(st.integers(1, 50), min_size=2, max_size=4),
    accountant=st.sampled_from(accounting.ACCOUNTANTS),
)
def test_a_history_in_parts_is_the_history_as_one(sigma, rate, parts, accountant):
    """The parts are told apart by a last bit of sigma, so that nothing is merged."""
    history = tuple((sigma * (1 + 1e-13 * number), steps) for number, steps in enumerate(parts))
    found = accounting.epsilon(accountant, history, rate, DELTA)
    assert found == pytest.approx(epsilon(accountant, sigma, rate, sum(parts)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_a_history_of_two_levels_does_not_depend_on_their_order(accountant):
    ways = [((0.8, 30), (1.5, 20)), ((1.5, 20), (0.8, 30)), ((0.8, 10), (1.5, 20), (0.8, 20))]
    found = [accounting.epsilon(accountant, way, 0.1, DELTA) for way in ways]
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)
    assert epsilon(accountant, 1.5, 0.1, 50) < found[0] < epsilon(accountant, 0.8, 0.1, 50)


def test_two_levels_are_what_the_libraries_compose():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant
    from opacus.accountants import PRVAccountant, RDPAccountant

    history = ((0.8, 30), (1.5, 21))
    rdp, prv, pld = RDPAccountant(), PRVAccountant(), PLDAccountant()
    rdp.history = prv.history = [(sigma, 0.1, steps) for sigma, steps in history]
    for sigma, steps in history:
        pld.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(sigma)), steps)
    found = {name: accounting.epsilon(name, history, 0.1, DELTA) for name in ("rdp", "prv", "pld")}
    assert found["rdp"] == pytest.approx(rdp.get_epsilon(DELTA), rel=1e-12)
    assert found["prv"] == pytest.approx(prv.get_epsilon(DELTA), rel=2e-3)
    assert found["pld"] == pytest.approx(pld.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.parametrize("accountant", ["prv", "pld"])
def test_what_is_kept_of_one_history_leaves_the_next_alone(accountant):
    """Growing, going back, another history, another rate: as if each were the first asked."""
    long = tuple((1 + epoch / 10, 5) for epoch in range(6))
    asked = [
        (long[:2], 0.1),
        (long[:5], 0.1),
        (long, 0.1),
        (long[:3], 0.1),
        (((2.0, 5), *long[1:4]), 0.1),
        (long[:4], 0.2),
        (long[:5], 0.1),
    ]
    found = [accounting.epsilon(accountant, history, rate, 1e-4) for history, rate in asked]
    for (history, rate), value in zip(asked, found, strict=True):
        accounting.epsilon.cache_clear()
        for composition in (accounting._compose_prv, accounting._compose_pld):
            composition.__init__(composition._extend)
        assert accounting.epsilon(accountant, history, rate, 1e-4) == pytest.approx(value, rel=1e-9)


# --- fixed-size batches without replacement ---


def renyi(alpha, p, q):
    """Renyi divergence of order alpha of two mixtures of unit-scale normals, by quadrature.

    A mixture is (weights, means, standard deviation).
    """

    def logpdf(x, mixture):
        weights, means, std = mixture
        return np.logaddexp.reduce(
            [math.log(w) + norm.logpdf(x, m, std) for w, m in zip(weights, means, strict=True)]
        )

    total, _ = quad(
        lambda x: math.exp(alpha * logpdf(x, p) + (1 - alpha) * logpdf(x, q)), -60, 60, limit=400
    )
    return math.log(total) / (alpha - 1)


def one_step(sigma, rate, alpha):
    """The bound in use at one order; sigma over the replace-one sensitivity."""
    orders = accounting._orders()
    return accounting._rdp_of_one_step(sigma, rate, True)[orders.index(alpha)]


@pytest.mark.parametrize("alpha", [2.0, 3.0, 6.0])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("std", [1.0, 2.0, 4.0])
def test_the_bound_without_replacement_holds_for_the_worst_neighbours(std, rate, alpha):
    """Gradients of norm 1, noise of `std`: sigma over the sensitivity, 2, is std / 2.

    A record is replaced by its opposite, the others give nothing; or they all point away from it.
    """
    bound = one_step(std / 2, rate, alpha)
    plus, minus = (((1 - rate, rate), (0.0, sign), std) for sign in (1.0, -1.0))
    apart = ((1 - rate, rate), (0.0, 2.0), std)
    nothing = ((1.0,), (0.0,), std)
    for p, q in ((plus, minus), (apart, nothing), (nothing, apart)):
        assert renyi(alpha, p, q) <= bound * (1 + 1e-6)


def test_the_bound_without_replacement_needs_the_doubled_sensitivity():
    """With sigma over the clipping norm the bound would be broken by two real data sets."""
    apart, nothing = ((0.1, 0.9), (0.0, 2.0), 1.0), ((1.0,), (0.0,), 1.0)
    assert renyi(2.0, apart, nothing) > one_step(1.0, 0.9, 2.0)


def test_without_replacement_is_what_dp_accounting_says_and_at_full_rate_a_gaussian():
    from dp_accounting import GaussianDpEvent, NeighboringRelation, SampledWithoutReplacementDpEvent
    from dp_accounting.rdp import RdpAccountant

    reference = RdpAccountant(accounting._orders(), NeighboringRelation.REPLACE_ONE)
    reference.compose(SampledWithoutReplacementDpEvent(88, 10, GaussianDpEvent(1.5)), 90)
    found = epsilon("rdp", 1.5, 10 / 88, 90, without_replacement=True)
    assert found == pytest.approx(reference.get_epsilon(DELTA), rel=1e-3)
    for sigma in (0.3, 1.5):
        whole = epsilon("rdp", sigma, 1.0, 90)
        assert epsilon("rdp", sigma, 1.0, 90, without_replacement=True) == pytest.approx(whole)
        # the published bound alone would cost six times the whole batch at sigma 0.3
        assert epsilon("rdp", sigma, 10 / 88, 90, without_replacement=True) <= whole


@pytest.mark.parametrize("accountant", ["prv", "gdp", "pld"])
def test_only_rdp_has_a_bound_without_replacement(accountant):
    with pytest.raises(ValueError, match=f"accountant {accountant} has no bound"):
        epsilon(accountant, 1.0, 0.1, 1, without_replacement=True)


# --- calibration ---


def test_nothing_done_costs_nothing():
    assert accounting.epsilon("prv", (), 0.1, DELTA) == 0


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
@pytest.mark.parametrize("target", [1.0, 8.0, 200.0])
def test_calibration_spends_the_budget_and_not_more(accountant, target):
    sigma = accounting.calibrate(target, accountant, ((1.0, 70),), 10 / 66, DELTA)
    assert epsilon(accountant, sigma, 10 / 66, 70) <= target
    assert epsilon(accountant, sigma * 0.99, 10 / 66, 70) > target


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_calibration_scales_a_history(accountant):
    history = ((1.0, 14), (0.6, 21))
    factor = accounting.calibrate(6.0, accountant, history, 0.15, DELTA)
    for scale, over in ((factor, False), (factor * 0.99, True)):
        scaled = tuple((sigma * scale, steps) for sigma, steps in history)
        assert (accounting.epsilon(accountant, scaled, 0.15, DELTA) > 6.0) == over


def test_calibration_refuses_what_no_noise_can_give():
    with pytest.raises(ValueError, match="above 1000"):
        accounting.calibrate(1e-4, "rdp", ((1.0, 100_000),), 1.0, DELTA)


@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
@pytest.mark.parametrize("target", [500.0, 1e9])
def test_calibration_refuses_what_less_noise_than_a_tenth_would_spend(accountant, target):
    most = epsilon(accountant, 0.1, 1.0, 1)
    with pytest.raises(ValueError, match=f"below 0.1, which spends {most:.4g}; lower the target"):
        accounting.calibrate(target, accountant, ((1.0, 1),), 1.0, DELTA)
    assert accounting.calibrate(most * 0.99, accountant, ((1.0, 1),), 1.0, DELTA) < 0.102


@pytest.mark.parametrize(("sigma", "rate"), [(2.0, 0.3), (0.5, 0.01)])
@pytest.mark.parametrize("delta", [1e-9, 1e-11, 1e-13])
def test_prv_stays_a_bound_where_delta_is_tiny(sigma, rate, delta):
    """Rounding in its Fourier transforms took it below the truth from 1e-12 on."""
    prv, pld = (epsilon(name, sigma, rate, 5000, delta) for name in ("prv", "pld"))
    assert prv >= pld * (1 - 5e-3)
