"""Epsilon of the sampled Gaussian mechanism under four accountants.

All take the same history: (noise multiplier, steps) one after the other, at one sample rate. The
noise multiplier is the standard deviation over the sensitivity. Batches are Poisson samples and
neighbours differ by a record more or less, unless `without_replacement`. They differ in tightness:

rdp  Renyi DP, Mironov et al. 2019 (arXiv:1908.10530), by Opacus: an upper bound. Without
     replacement Wang et al. 2019 (arXiv:1808.00087), by dp-accounting.
prv  privacy random variables, Gopi et al. 2021 (arXiv:2106.02848), discretised by Opacus, composed
     and read off here: an upper bound. Below a delta of 1e-10 rounding in its Fourier transforms
     is no longer small; rdp is given. Below a noise multiplier of about 0.03, where one step loses
     more than Opacus has numbers for, and where its grid would be too large, pld is given.
pld  privacy loss distribution, Doroshenko et al. 2022 (arXiv:2207.04380), by dp-accounting: an
     upper bound (pessimistic estimate, connected dots). Where rdp has less than 0.001 or more than
     1e7, that is given.
gdp  Gaussian DP, Bu et al. 2020 (arXiv:1911.11607), by Opacus: a central limit approximation,
     neither an upper nor a lower bound.

Where every step takes all records (rate 1) the mechanism is one Gaussian, whose epsilon is known
exactly (Balle & Wang 2018, arXiv:1805.06530): there prv, pld and gdp all give that.
"""

from __future__ import annotations

import bisect
import functools
import math
import warnings

ACCOUNTANTS = ("rdp", "prv", "gdp", "pld")
SMALLEST_PRV_DELTA = 1e-10  # 10 times what was found to be safe
MIN_ERROR = 0.01  # the default error in epsilon of Opacus' PRV accountant
RELATIVE_ERROR = 0.002  # coarser where epsilon is large: there 0.01 costs seconds and gigabytes
MAX_ERROR = 0.9  # the domain of the PRV accountant is safe for errors below 1
MOST_NOISE = 1e6  # more counts as this: Opacus' series for rdp lose all digits from 1e8 on
LARGEST_LOSS = 700  # in one step; exp, by which Opacus has its distribution, ends at 709
LARGEST_GRID = 2**21  # what takes seconds
PLD_RANGE = (1e-3, 1e7)  # of rdp epsilons: beyond, its grid takes minutes or is too coarse
PLD_ERROR = 5e-4  # steps x interval^2 / epsilon: epsilons above 0.3 are exact to 0.3 %

History = tuple[tuple[float, int], ...]


def approximate(accountant: str, sampling: str) -> bool:
    """Whether an accountant gives no upper bound for batches drawn by `sampling`.

    Shuffled batches are not amplified: each epoch is one Gaussian, whose epsilon gdp has exactly.
    """
    return accountant == "gdp" and sampling != "shuffled"


@functools.cache
def epsilon(
    accountant: str,
    history: History,
    sample_rate: float,
    delta: float,
    without_replacement: bool = False,
) -> float:
    """Epsilon of (epsilon, delta)-DP after all steps of `history`; 0 for none.

    Args:
        accountant: one of ACCOUNTANTS.
        history: (sigma, steps) in the order of training; sigma > 0, the noise standard deviation
            over the sensitivity.
        sample_rate: q in (0, 1]: the probability that a unit is in a batch; without replacement
            the share of the units that is in every batch.
        delta: in (0, 1).
        without_replacement: batches of a fixed size, independent of each other; neighbours
            differ by one record replaced, and sigma is over that sensitivity. For rdp only.

    Returns:
        Epsilon >= 0. The bound of prv includes its error allowance: 0.2 % of the rdp epsilon,
        0.01 to 0.9.

    Raises:
        ValueError: where the accountant has no bound without replacement.
    """
    if without_replacement and accountant != "rdp":
        raise ValueError(f"accountant {accountant} has no bound without replacement")
    if not history:
        return 0.0
    history = tuple((min(sigma, MOST_NOISE), steps) for sigma, steps in history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "optimal order is the smallest alpha": still a bound
        if accountant == "rdp":
            found = _rdp(history, sample_rate, delta, without_replacement)
        elif accountant == "gdp" or sample_rate == 1:
            found = _gdp(history, sample_rate, delta)
        elif accountant == "prv" and delta < SMALLEST_PRV_DELTA:
            found = _rdp(history, sample_rate, delta)
        else:
            found = {"prv": _prv, "pld": _pld}[accountant](history, sample_rate, delta)
    return float(max(found, 0.0))  # below 0 by rounding; NaN stays NaN


def calibrate(
    target_epsilon: float,
    accountant: str,
    history: History,
    sample_rate: float,
    delta: float,
    without_replacement: bool = False,
) -> float:
    """The smallest factor (to 0.1 %) on all sigmas of `history` that spends at most the target.

    With sigmas of 1 it is the noise multiplier.

    Raises:
        ValueError: where no factor from 0.1 to 1000 spends the target.
    """
    from scipy.optimize import brentq

    def spent(accountant: str, log_factor: float, without_replacement: bool = False) -> float:
        scaled = tuple((sigma * math.exp(log_factor), steps) for sigma, steps in history)
        return epsilon(accountant, scaled, sample_rate, delta, without_replacement)

    def excess(log_factor: float) -> float:
        # log epsilon is close to linear in the logarithm of the noise: few evaluations
        found = spent(accountant, log_factor, without_replacement)
        return math.log(min(max(found, 1e-9), 1e9) / target_epsilon)

    task = (
        f"target_epsilon {target_epsilon:g} at delta {delta:g} over "
        f"{sum(steps for _, steps in history)} steps of sample rate {sample_rate:.3g} needs a "
        "noise multiplier"
    )
    floor, ceiling = math.log(0.1), math.log(1000)
    low, high = floor, ceiling
    while high - low > 0.05:  # where gdp has it, which costs nothing, for a start
        middle = (low + high) / 2
        low, high = (middle, high) if spent("gdp", middle) > target_epsilon else (low, middle)
    stride = 0.05
    while excess(high) > 0:
        if high == ceiling:
            raise ValueError(f"{task} above 1000; raise the target or lower the epochs")
        low, high, stride = high, min(high + stride, ceiling), 2 * stride
    while excess(low) <= 0:
        if low == floor:
            most = spent(accountant, floor, without_replacement)
            raise ValueError(f"{task} below 0.1, which spends {most:.4g}; lower the target")
        high, low, stride = low, max(low - stride, floor), 2 * stride
    root = brentq(excess, low, high, xtol=2.5e-4)
    while excess(root) > 0:
        root += 2.5e-4
    return math.exp(root)


@functools.cache
def _rdp_of_one_step(sigma: float, sample_rate: float, without_replacement: bool):
    """The Renyi divergence of one step at each order: nine tenths of all accounting time."""
    import numpy as np
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = np.array(_orders())
    if not without_replacement:
        return compute_rdp(q=sample_rate, noise_multiplier=sigma, steps=1, orders=orders)
    from dp_accounting.rdp.rdp_privacy_accountant import _compute_rdp_sample_wor_gaussian

    # a sample costs no more than the whole: the divergence is jointly quasi-convex
    whole = orders / (2 * sigma**2)
    return np.minimum(whole, _compute_rdp_sample_wor_gaussian(sample_rate, sigma, orders))


def _orders() -> list[float]:
    from opacus.accountants import RDPAccountant

    return RDPAccountant.DEFAULT_ALPHAS


def _rdp(
    history: History, sample_rate: float, delta: float, without_replacement: bool = False
) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    total = sum(
        steps * _rdp_of_one_step(sigma, sample_rate, without_replacement)
        for sigma, steps in history
    )
    return float(get_privacy_spent(orders=_orders(), rdp=total, delta=delta)[0])


def _gdp(history: History, sample_rate: float, delta: float) -> float:
    """mu^2 adds up over the steps; at rate 1 it is steps / sigma^2 and no approximation."""
    import numpy as np
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
    from opacus.accountants.analysis.gdp import compute_mu_poisson

    def mu(sigma: float, steps: int) -> float:
        if sample_rate == 1:
            return math.sqrt(steps) / sigma
        return compute_mu_poisson(steps=steps, noise_multiplier=sigma, sample_rate=sample_rate)

    with np.errstate(over="ignore"):  # an infinite mu has an infinite epsilon
        total = math.hypot(*(mu(sigma, steps) for sigma, steps in history))
    return float(get_epsilon_gaussian(1 / total, delta))


class _Growing:
    """A composition that is kept, so that a longer history goes on from where the last one ended.

    `extend(composed, sigma, steps, *mechanism)` gives `composed` and `steps` steps more.
    """

    def __init__(self, extend):
        self._extend = extend
        self._of: tuple = ()
        self._past: History = ()
        self._composed = None

    def __call__(self, history: History, *mechanism):
        past = history[:-1]  # the last noise level still grows
        if self._of != mechanism or past[: len(self._past)] != self._past:
            self._of, self._past, self._composed = mechanism, (), None
        for sigma, steps in past[len(self._past) :]:
            self._composed = self._extend(self._composed, sigma, steps, *mechanism)
        self._past = past
        return self._extend(self._composed, *history[-1], *mechanism)


def _prv(history: History, sample_rate: float, delta: float) -> float:
    """Gopi et al. 2021, algorithm 1 and remark 5.6, on a grid that a growing history shares.

    Width and mesh are those of Opacus brought to a power of two, the wider and the finer one. The
    last step is not that of Opacus, which gives infinity where epsilon is above 709.
    """
    import numpy as np
    from scipy.fft import irfft
    from scipy.signal import lfilter

    steps = sum(count for _, count in history)
    delta_error = delta / 1000
    error = RELATIVE_ERROR * _rdp(history, sample_rate, delta)
    error = min(max(MIN_ERROR, error), MAX_ERROR)
    one = _rdp(((min(history)[0], 1),), sample_rate, delta_error / (8 * steps))
    width = 3 + max(_rdp(history, sample_rate, delta_error / 4), one, error)
    mesh = error / math.sqrt(steps * math.log(12 / delta_error) / 2)
    width, mesh = 2.0 ** math.ceil(math.log2(width)), 2.0 ** math.floor(math.log2(mesh))
    size = round(2 * width / mesh)
    if one > LARGEST_LOSS or size > LARGEST_GRID:
        return _pld(history, sample_rate, delta)

    transform, shift = _compose_prv(history, sample_rate, width, mesh)
    mass = irfft(transform, n=size)
    if steps % 2 == 0:
        mass = np.roll(mass, size // 2)
    # from the top: the mass above each loss t, and that mass weighted by exp(t - loss)
    above = np.cumsum(mass[::-1])[::-1]
    weighted = lfilter([1.0], [1.0, -math.exp(-mesh)], mass[::-1])[::-1]
    at = int(np.searchsorted(weighted - above, delta_error - delta))
    crossing = math.log((above[at] - delta + delta_error) / weighted[at])
    return shift - width + at * mesh + crossing + error


@functools.lru_cache(maxsize=2)
def _prv_of_one_step(sigma: float, sample_rate: float, width: float, mesh: float):
    """Fourier transform of the privacy loss of one step on the grid, and the shift of its mean."""
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        discretize,
    )
    from scipy.fft import rfft

    grid = Domain(-width, width - mesh, round(2 * width / mesh))
    loss = PoissonSubsampledGaussianPRV(sample_rate, sigma)
    one = discretize(TruncatedPrivacyRandomVariable(loss, grid.t_min, grid.t_max), grid)
    return rfft(one.pmf), one.domain.shifts


def _extend_prv(composed, sigma, steps, sample_rate, width, mesh):
    transform, shift = _prv_of_one_step(sigma, sample_rate, width, mesh)
    before, shifted = composed or (1.0, 0.0)
    return before * transform**steps, shifted + steps * shift


def _pld(history: History, sample_rate: float, delta: float) -> float:
    """On a grid of the privacy loss that is a power of two, for a growing history to share."""
    steps = sum(count for _, count in history)
    scale = _rdp(history, sample_rate, delta)
    if not PLD_RANGE[0] < scale < PLD_RANGE[1]:
        return scale
    interval = min(max(0.01, scale / 1e5), scale / 300, math.sqrt(PLD_ERROR * scale / steps))
    interval = 2.0 ** math.floor(math.log2(interval))
    composed = _compose_pld(history, sample_rate, interval)
    found = composed.get_epsilon_for_delta(delta)
    if found == math.inf:  # from 709 to 745, where exp(-epsilon) has few digits
        found = bisect.bisect_left(
            range(int(scale) + 1), -delta, key=lambda least: -composed.get_delta_for_epsilon(least)
        )
    return min(scale, float(found))


@functools.lru_cache(maxsize=2)
def _pld_of_one_step(sigma: float, sample_rate: float, interval: float):
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=sample_rate, value_discretization_interval=interval
    )


def _extend_pld(composed, sigma, steps, sample_rate, interval):
    more = _pld_of_one_step(sigma, sample_rate, interval).self_compose(steps)
    return composed.compose(more) if composed else more


_compose_prv, _compose_pld = _Growing(_extend_prv), _Growing(_extend_pld)
