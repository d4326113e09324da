"""What a private cell promises, fixed before its first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting

_ACCOUNTED = {
    ("poisson", "add_remove"): accounting.ACCOUNTANTS,
    ("poisson", "zero_out"): accounting.ACCOUNTANTS,
    ("fixed_size", "replace_one"): ("rdp",),
    ("shuffled", "replace_one"): accounting.ACCOUNTANTS,
    ("shuffled", "zero_out"): accounting.ACCOUNTANTS,
}
_WITHOUT = {
    ("poisson", "replace_one"): "the accountants bound Poisson batches for one record more or "
    "less; use neighbouring add_remove or zero_out",
    ("fixed_size", "add_remove"): "a record more or less changes the share that a batch of fixed "
    "size takes of every other record; use neighbouring replace_one",
    ("fixed_size", "zero_out"): "the bound for batches of fixed size (Wang et al. 2019) is for "
    "replaced records; use neighbouring replace_one",
    ("shuffled", "add_remove"): "a record more or less shifts the other records between the "
    "batches of an epoch; use neighbouring zero_out or replace_one",
}


def validity(sampling: str, neighbouring: str, accountant: str) -> str | None:
    """Why no epsilon of `accountant` holds for this sampling and neighbouring; None if one does.

    poisson, add_remove: the sampled Gaussian mechanism, what every accountant is made for.
    poisson, zero_out: a record is replaced by one whose gradient is 0. The others are drawn as if
        it were not there, and it adds nothing to the sum: the output is distributed exactly as
        after its removal, so every add_remove bound is a bound here.
    fixed_size, replace_one: Wang et al. 2019 (arXiv:1808.00087), by rdp only.
    shuffled, zero_out or replace_one: no amplification. Whatever the order, a record is in one
        batch of an epoch, so an epoch costs one Gaussian on all the data (parallel composition
        within it).
    """
    accounted = _ACCOUNTED.get((sampling, neighbouring))
    if accounted is None:
        return (
            f"sampling {sampling} with neighbouring {neighbouring} has no valid accounting: "
            + (_WITHOUT[sampling, neighbouring])
        )
    if accountant not in accounted:
        return (
            f"accountant {accountant} has no bound for sampling {sampling}; "
            f"use {' or '.join(accounted)}"
        )
    return None


def check_size(num_records: int, batch_size: int, delta: float, dataset: str = "the split") -> None:
    """Refuse a batch size or a delta that `num_records` training records cannot carry.

    Raises:
        UserError: unless 1 <= batch_size <= num_records and 0 < delta < 1 / num_records.
    """
    has = f"but {dataset} has {num_records} training records"
    if not 1 <= batch_size <= num_records:
        raise UserError(
            f"training.batch_size: found {batch_size}, {has}; allowed is 1 to {num_records}"
        )
    if not 0 < delta < 1 / num_records:
        raise UserError(
            f"privacy.delta: found {delta:g}, {has}; allowed is less than 1/{num_records} = "
            f"{1 / num_records:.2g}"
        )


@dataclass(frozen=True)
class PrivacyPlan:
    """The frozen contract of one private cell.

    It alone hands out the sampler, the standard deviation of the noise and epsilon. Nothing that
    only makes training faster is in it, so nothing that only makes training faster can change
    epsilon. Steps count from 1.

    Args:
        unit: whose presence is hidden ("image").
        sampling: "poisson", "fixed_size" or "shuffled".
        neighbouring: "add_remove" (a unit more or less), "replace_one" (by any other) or
            "zero_out" (by one without a gradient).
        num_records: N, training records.
        batch_size: expected batch size, 1 <= batch_size <= N. It is public, and what the sum of
            gradients is divided by, whatever the size of the batch that was drawn.
        epochs: passes over the data; each has ceil(N / batch_size) steps.
        noise_multiplier: sigma > 0, over `clipping_norm` and not over the sensitivity.
        thresholds: clipping thresholds, one for flat clipping, one a tensor for per-layer.
        delta: in (0, 1/N).
        accountant: whose epsilon is reported first.
        noise_factors: of each epoch, > 0, on the noise multiplier; () for 1 throughout.
        count_noise: sigma_b, the noise on the count of clipped gradients where the threshold
            adapts (Andrew et al. 2021, arXiv:1905.03871). The noise multiplier then covers count
            and gradients together.

    Raises:
        UserError: where the numbers cannot be a promise.
    """

    unit: str
    sampling: str
    neighbouring: str
    num_records: int
    batch_size: int
    epochs: int
    noise_multiplier: float
    thresholds: tuple[float, ...]
    delta: float
    accountant: str
    noise_factors: tuple[float, ...] = ()
    count_noise: float | None = None

    def __post_init__(self) -> None:
        check_size(self.num_records, self.batch_size, self.delta)
        reason = validity(self.sampling, self.neighbouring, self.accountant)
        if reason:
            raise UserError(f"privacy: {reason}")
        if not self.noise_multiplier > 0 or not math.isfinite(self.noise_multiplier):
            raise UserError(
                f"noise_multiplier: found {self.noise_multiplier:g}, expected a number above 0"
            )
        if not self.thresholds or min(self.thresholds) <= 0:
            raise UserError(f"max_grad_norm: found {self.thresholds}, expected thresholds above 0")
        factors = self.noise_factors
        if factors and (len(factors) != self.epochs or not 0 < min(factors) <= max(factors) < 1e9):
            raise UserError(
                f"noise_schedule: found {len(factors)} factors from {min(factors):g} to "
                f"{max(factors):g}, expected one above 0 for each of {self.epochs} epochs"
            )
        most = self.noise_multiplier * max(factors, default=1.0)
        if self.count_noise is not None and not most < 2 * self.count_noise:
            raise UserError(
                f"count_noise: found {self.count_noise:g}, expected more than half the largest "
                f"noise multiplier of a step ({most:g}); raise it or lower the noise multiplier"
            )

    @property
    def sample_rate(self) -> float:
        """q = batch_size / N: the probability that a record is in a batch of an epoch's steps."""
        return self.batch_size / self.num_records

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(self.num_records / self.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def clipping_norm(self) -> float:
        """The effective max_grad_norm."""
        return clipping_norm(self.thresholds)

    @property
    def sensitivity(self) -> float:
        """L2 norm of the most that the sum differs between neighbours, for the same draws.

        A record that is replaced takes its gradient away and brings another: twice the norm.
        """
        return self.clipping_norm * (2 if self.neighbouring == "replace_one" else 1)

    def noise_multiplier_at(self, step: int) -> float:
        """The noise multiplier of `step`, 1 <= step <= steps, that the accountant counts."""
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is not one of {self.steps}")
        epoch = (step - 1) // self.steps_per_epoch
        return self.noise_multiplier * (self.noise_factors[epoch] if self.noise_factors else 1.0)

    def noise_std(self, step: int, clipping_norm: float | None = None) -> float:
        """Standard deviation of the Gaussian added to each coordinate of the clipped sum.

        It is the step's noise multiplier times `clipping_norm` (None: of the plan's thresholds;
        another where they adapt), unless a share is spent on the count of clipped gradients: then
        sigma becomes (sigma^-2 - (2 sigma_b)^-2)^(-1/2) (Andrew et al. 2021, theorem 1). The
        formula is the same for replaced records, which double the sensitivity of both.
        """
        sigma = self.noise_multiplier_at(step)
        if self.count_noise is not None:
            sigma = (sigma**-2 - (2 * self.count_noise) ** -2) ** -0.5
        return sigma * (self.clipping_norm if clipping_norm is None else clipping_norm)

    def sampler(self, randomness):
        """The sampler of this plan, drawing from `randomness`."""
        from dpmedbench.privacy.sampling import SAMPLERS

        size = self.sample_rate if self.sampling == "poisson" else self.batch_size
        return SAMPLERS[self.sampling](self.num_records, size, randomness)

    def history(self, steps: int) -> tuple[tuple[float, int], ...]:
        """(noise multiplier, number of steps) of the first `steps`, equal neighbours merged."""
        if steps and not self.noise_factors:
            return ((self.noise_multiplier, steps),)
        each = self.steps_per_epoch
        sizes = (min(each, steps - first) for first in range(0, steps, each))
        epochs = (
            (self.noise_multiplier_at(1 + epoch * each), size) for epoch, size in enumerate(sizes)
        )
        return tuple(
            (sigma, sum(size for _, size in same))
            for sigma, same in itertools.groupby(epochs, key=lambda one: one[0])
        )

    def epsilon(self, steps: int, accountant: str | None = None) -> float:
        """Epsilon at `delta` after `steps` steps; of the plan's accountant unless one is named.

        Raises:
            ValueError: where the accountant has no bound for this sampling.
        """
        name = accountant or self.accountant
        reason = validity(self.sampling, self.neighbouring, name)
        if reason:
            raise ValueError(reason)
        return accounting.epsilon(name, self._composed(self.history(steps)), **self._mechanism())

    def epsilons(self, steps: int) -> dict[str, float]:
        """Epsilon after `steps` steps under every accountant; inf where one has no bound."""
        return {
            name: math.inf
            if validity(self.sampling, self.neighbouring, name)
            else self.epsilon(steps, name)
            for name in accounting.ACCOUNTANTS
        }

    def calibrated(self, target_epsilon: float) -> PrivacyPlan:
        """The same plan with the noise multiplier that spends `target_epsilon` in all its steps.

        The noise factors stay.
        """
        unit = replace(self, noise_multiplier=1.0, count_noise=None)
        try:
            sigma = accounting.calibrate(
                target_epsilon,
                self.accountant,
                self._composed(unit.history(self.steps)),
                **self._mechanism(),
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        return replace(self, noise_multiplier=sigma)

    def _composed(self, history) -> tuple[tuple[float, int], ...]:
        """What the accountant composes: noise over sensitivity, and how many mechanisms."""
        over = self.clipping_norm / self.sensitivity
        each = self.steps_per_epoch if self.sampling == "shuffled" else 1
        return tuple((sigma * over, math.ceil(steps / each)) for sigma, steps in history)

    def _mechanism(self) -> dict:
        """The mechanism of one step (of one epoch, where shuffled) for the accountant."""
        return {
            "sample_rate": 1.0 if self.sampling == "shuffled" else self.sample_rate,
            "delta": self.delta,
            "without_replacement": self.sampling == "fixed_size",
        }


def thresholds(max_grad_norm: float, style: str, layer_thresholds: str, tensors: int) -> tuple:
    """Clipping thresholds of a style: (R,) for flat; for per_layer one for each tensor.

    "scaled" gives R / sqrt(L), whose sensitivity is R; "same" gives R for each of L tensors, as
    published in the Book-Keeping study, whose sensitivity, and so noise, is R sqrt(L).
    """
    if style == "flat":
        return (max_grad_norm,)
    each = max_grad_norm / math.sqrt(tensors) if layer_thresholds == "scaled" else max_grad_norm
    return (each,) * tensors


def clipping_norm(limits: Sequence[float]) -> float:
    """L2 norm of the most that one record adds to the sum of clipped gradients.

    With one threshold R_l a tensor this is sqrt(sum R_l^2) (McMahan et al. 2018, arXiv:1812.06210,
    section 2.2).
    """
    return math.hypot(*limits)
