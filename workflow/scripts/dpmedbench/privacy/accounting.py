"""Epsilon of the Poisson-subsampled Gaussian mechanism under four accountants.

All take the same mechanism: `steps` compositions of a Gaussian of noise multiplier sigma on a
Poisson sample of rate q, neighbours by add or remove. They differ in tightness only:

rdp  Renyi DP, Mironov et al. 2019 (arXiv:1908.10530), by Opacus: an upper bound.
prv  privacy random variables, Gopi et al. 2021 (arXiv:2106.02848), by Opacus: an upper bound.
pld  privacy loss distribution, Doroshenko et al. 2022 (arXiv:2207.04380), by dp-accounting: an
     upper bound (pessimistic estimate, connected dots).
gdp  Gaussian DP, Bu et al. 2020 (arXiv:1911.11607), by Opacus: a central limit approximation,
     neither an upper nor a lower bound.
"""

from __future__ import annotations

import functools
import math
import warnings

ACCOUNTANTS = ("rdp", "prv", "gdp", "pld")
MIN_ERROR = 0.01  # the default error in epsilon of Opacus' PRV accountant
RELATIVE_ERROR = 0.002  # coarser where epsilon is large: there 0.01 costs seconds and gigabytes
MAX_ERROR = 0.9  # the domain of the PRV accountant is safe for errors below 1
PLD_INTERVAL = 1e-3  # of the privacy loss; 1e-4 changes epsilon by less than 2e-4 of its value


@functools.cache
def epsilon(
    accountant: str, noise_multiplier: float, sample_rate: float, steps: int, delta: float
) -> float:
    """Epsilon of (epsilon, delta)-DP after `steps` steps; 0 for no step.

    Args:
        accountant: one of ACCOUNTANTS.
        noise_multiplier: sigma > 0, the noise standard deviation over the sensitivity.
        sample_rate: q in (0, 1], the probability that a unit is in a batch.
        steps: number of steps, >= 0.
        delta: in (0, 1).

    Returns:
        Epsilon >= 0; NaN where gdp has no root below 500 (the bracket of Opacus). The bound of
        prv includes its error allowance: 0.2 % of the rdp epsilon, 0.01 to 0.9.
    """
    if steps == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "optimal order is the smallest alpha": still a bound
        found = _EPSILON[accountant](noise_multiplier, sample_rate, steps, delta)
    return found if math.isnan(found) else max(0.0, found)


def calibrate(
    target_epsilon: float, accountant: str, sample_rate: float, steps: int, delta: float
) -> float:
    """The smallest noise multiplier (to 0.1 %) whose epsilon is at most `target_epsilon`.

    Raises:
        ValueError: where no noise multiplier up to 1000 meets the target.
    """

    def too_much(log_sigma: float) -> bool:
        # an epsilon that is not a number (gdp) is one above the bracket of Opacus
        found = epsilon(accountant, math.exp(log_sigma), sample_rate, steps, delta)
        return not found <= target_epsilon

    low, high = math.log(0.2) - math.log(2), math.log(0.2)
    while too_much(high):
        low, high = high, high + math.log(2)
        if high > math.log(1000):
            raise ValueError(
                f"target_epsilon {target_epsilon:g} at delta {delta:g} over {steps} steps of "
                f"sample rate {sample_rate:.3g} needs a noise multiplier above 1000"
            )
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if too_much(middle) else (low, middle)
    return math.exp(high)


@functools.cache
def _rdp_of_one_step(noise_multiplier: float, sample_rate: float) -> tuple:
    """Orders and the Renyi divergence of one step at each: nine tenths of all accounting time."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = RDPAccountant.DEFAULT_ALPHAS
    return orders, compute_rdp(
        q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=orders
    )


def _rdp(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    orders, one = _rdp_of_one_step(noise_multiplier, sample_rate)
    found, _ = get_privacy_spent(orders=orders, rdp=one * steps, delta=delta)
    return float(found)


def _prv(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import Domain

    class Accountant(PRVAccountant):
        def _get_domain(self, *, prvs, num_self_compositions, eps_error, delta_error):
            """The domain of Opacus (Gopi et al. 2021, remark 5.6), its RDP terms not repeated."""
            width = max(
                _rdp(noise_multiplier, sample_rate, steps, delta_error / 4),
                _rdp(noise_multiplier, sample_rate, 1, delta_error / (8 * steps)),
                eps_error,
            )
            mesh = eps_error / math.sqrt(steps * math.log(12 / delta_error) / 2)
            return Domain.create_aligned(-width - 3, width + 3, mesh)

    scale = _rdp(noise_multiplier, sample_rate, steps, delta)
    error = min(max(MIN_ERROR, RELATIVE_ERROR * scale), MAX_ERROR)
    accountant = Accountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta, eps_error=error))


def _gdp(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import GaussianAccountant

    accountant = GaussianAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    try:
        return float(accountant.get_epsilon(delta))
    except ValueError:  # no sign change in the bracket [0, 500]
        return math.nan


@functools.cache
def _pld_of_one_step(noise_multiplier: float, sample_rate: float):
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sample_rate,
        value_discretization_interval=PLD_INTERVAL,
    )


def _pld(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    one = _pld_of_one_step(noise_multiplier, sample_rate)
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


_EPSILON = {"rdp": _rdp, "prv": _prv, "gdp": _gdp, "pld": _pld}
