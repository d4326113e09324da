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

import math
import warnings

ACCOUNTANTS = ("rdp", "prv", "gdp", "pld")
MIN_ERROR = 0.01  # the default error in epsilon of Opacus' PRV accountant
RELATIVE_ERROR = 0.002  # coarser where epsilon is large: there 0.01 costs seconds and gigabytes
PLD_INTERVAL = 1e-3  # of the privacy loss; 1e-4 changes epsilon by less than 2e-4 of its value


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
        prv includes its error allowance max(0.01, 0.2 % of the rdp epsilon).
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
        ValueError: where no noise multiplier from 0.2 to 1000 meets the target.
    """
    from scipy.optimize import brentq

    def excess(log_sigma: float) -> float:
        found = epsilon(accountant, math.exp(log_sigma), sample_rate, steps, delta)
        return (math.inf if math.isnan(found) else found) - target_epsilon

    low, high = math.log(0.2), math.log(0.2)
    while excess(high) > 0:
        low, high = high, high + math.log(2)
        if high > math.log(1000):
            raise ValueError(
                f"target_epsilon {target_epsilon:g} at delta {delta:g} over {steps} steps of "
                f"sample rate {sample_rate:.3g} needs a noise multiplier above 1000"
            )
    if low == high:
        return math.exp(high)
    while not math.isfinite(excess(low)):
        low = (low + high) / 2
        if excess(low) <= 0:
            return math.exp(low)
    sigma = math.exp(brentq(excess, low, high, xtol=2e-4))
    while excess(math.log(sigma)) > 0:  # brentq ends on either side of the root
        sigma *= 1.0005
    return sigma


def _rdp(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta))


def _prv(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import PRVAccountant

    scale = _rdp(noise_multiplier, sample_rate, steps, delta)
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta, eps_error=max(MIN_ERROR, RELATIVE_ERROR * scale)))


def _gdp(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import GaussianAccountant

    accountant = GaussianAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    try:
        return float(accountant.get_epsilon(delta))
    except ValueError:  # no sign change in the bracket [0, 500]
        return math.nan


def _pld(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sample_rate,
        value_discretization_interval=PLD_INTERVAL,
    )
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


_EPSILON = {"rdp": _rdp, "prv": _prv, "gdp": _gdp, "pld": _pld}
