"""What a private cell promises, fixed before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting


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
    epsilon.

    Args:
        unit: whose presence is hidden ("image").
        neighbouring: "add_remove".
        num_records: N, training records.
        batch_size: expected batch size, 1 <= batch_size <= N; q = batch_size / N.
        epochs: passes over the data; each has ceil(N / batch_size) steps.
        noise_multiplier: sigma > 0.
        thresholds: clipping thresholds, one for flat clipping, one a tensor for per-layer.
        delta: in (0, 1/N).
        accountant: whose epsilon is reported first.

    Raises:
        UserError: where the numbers cannot be a promise.
    """

    unit: str
    neighbouring: str
    num_records: int
    batch_size: int
    epochs: int
    noise_multiplier: float
    thresholds: tuple[float, ...]
    delta: float
    accountant: str

    def __post_init__(self) -> None:
        check_size(self.num_records, self.batch_size, self.delta)
        if not self.noise_multiplier > 0 or not math.isfinite(self.noise_multiplier):
            raise UserError(
                f"noise_multiplier: found {self.noise_multiplier:g}, expected a number above 0"
            )
        if not self.thresholds or min(self.thresholds) <= 0:
            raise UserError(f"max_grad_norm: found {self.thresholds}, expected thresholds above 0")

    @property
    def sample_rate(self) -> float:
        """q, the probability that a record is in a batch."""
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
    def sensitivity(self) -> float:
        """L2 norm of the most that one record adds to the sum of clipped gradients.

        With one threshold R_l a tensor this is sqrt(sum R_l^2) (McMahan et al. 2018,
        arXiv:1812.06210, section 2.2): the effective max_grad_norm.
        """
        return math.sqrt(sum(threshold**2 for threshold in self.thresholds))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the Gaussian added to each coordinate of the clipped sum."""
        return self.noise_multiplier * self.sensitivity

    def sampler(self, seed: int):
        """The Poisson sampler of this plan."""
        from dpmedbench.privacy.sampling import PoissonSampler

        return PoissonSampler(self.num_records, self.sample_rate, seed)

    def epsilon(self, steps: int, accountant: str | None = None) -> float:
        """Epsilon at `delta` after `steps` steps; of the plan's accountant unless one is named."""
        return accounting.epsilon(
            accountant or self.accountant,
            self.noise_multiplier,
            self.sample_rate,
            steps,
            self.delta,
        )

    def epsilons(self, steps: int) -> dict[str, float]:
        """Epsilon after `steps` steps under every accountant."""
        return {name: self.epsilon(steps, name) for name in accounting.ACCOUNTANTS}

    def calibrated(self, target_epsilon: float) -> PrivacyPlan:
        """The same plan with the noise multiplier that spends `target_epsilon` in all its steps."""
        try:
            sigma = accounting.calibrate(
                target_epsilon, self.accountant, self.sample_rate, self.steps, self.delta
            )
        except ValueError as error:
            raise UserError(f"{error}; raise the target or lower the epochs") from None
        return replace(self, noise_multiplier=sigma)


def thresholds(max_grad_norm: float, style: str, layer_thresholds: str, tensors: int) -> tuple:
    """Clipping thresholds of a style: (R,) for flat; for per_layer one for each tensor.

    "scaled" gives R / sqrt(L), whose sensitivity is R; "same" gives R for each of L tensors, as
    published in the Book-Keeping study, whose sensitivity, and so noise, is R sqrt(L).
    """
    if style == "flat":
        return (max_grad_norm,)
    each = max_grad_norm / math.sqrt(tensors) if layer_thresholds == "scaled" else max_grad_norm
    return (each,) * tensors
