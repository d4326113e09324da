"""Whether a private cell kept its plan, checked while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import torch
from torch import nn

from dpmedbench.errors import UserError
from dpmedbench.privacy.plan import PrivacyPlan
from dpmedbench.privacy.sampling import PoissonSampler

# A kept promise is called broken less than once in 10^9 cells.
SIGNIFICANCE = 1e-9


class ContractBroken(UserError):
    """What happened is not what was promised; the sentence says which promise broke."""


@dataclass
class Observed:
    """What a run did so far; plain numbers, so that a checkpoint holds them."""

    batches: int = 0
    steps: int = 0
    draws: int = 0
    draws_squared: int = 0
    empty_batches: int = 0
    noise_additions: int = 0
    noise_squared: float = 0.0
    noise_coordinates: int = 0


class ContractMonitor:
    """Watches one cell: sampler, batches, clipping, noise and steps against the plan.

    `drew` is called for each logical batch, `noised` once a step by the engine, `finish` at the
    end. Each raises ContractBroken with the promise that broke. With `every` above 1 the size of
    the clipped sum and of the noise is measured on one step in `every`, which waits for the
    device; everything else is checked on all steps.
    """

    def __init__(self, plan: PrivacyPlan, model: nn.Module, num_records: int, every: int = 1):
        if num_records != plan.num_records:
            raise ContractBroken(
                f"privacy contract: the plan is for {plan.num_records} training records, found "
                f"{num_records}; the sample rate and epsilon would be wrong"
            )
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                raise ContractBroken(
                    f"privacy contract: layer {name} is BatchNorm in training mode, which mixes "
                    "the records of a batch; use GroupNorm"
                )
        self.plan = plan
        self.every = every
        self.trainable = {
            id(parameter): name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.observed = Observed()
        self._batch = 0
        self._seen = torch.zeros(plan.num_records, dtype=torch.int64)

    def drew(self, sampler: object, indices: torch.Tensor) -> None:
        """Record one logical batch, drawn by `sampler`."""
        plan, observed = self.plan, self.observed
        if type(sampler) is not PoissonSampler:
            raise ContractBroken(
                f"privacy contract: batches come from {type(sampler).__name__}, the plan needs "
                "PoissonSampler; epsilon does not hold for shuffled or fixed batches"
            )
        if sampler.num_records != plan.num_records or sampler.sample_rate != plan.sample_rate:
            raise ContractBroken(
                f"privacy contract: the sampler draws from {sampler.num_records} records at rate "
                f"{sampler.sample_rate:.6g}, the plan says {plan.num_records} at "
                f"{plan.sample_rate:.6g}"
            )
        self._batch = len(indices)
        observed.batches += 1
        observed.draws += self._batch
        observed.draws_squared += self._batch**2
        observed.empty_batches += self._batch == 0
        self._seen[indices] += 1

    def noised(
        self,
        parameters: list[nn.Parameter],
        sums: Callable[[nn.Parameter], tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        """Record the noise of one step.

        Args:
            parameters: those that got noise.
            sums: gives, for one of them, the sum of its clipped per-sample gradients and that
                sum with noise, both of its shape; called on the measured steps only.
        """
        plan, observed = self.plan, self.observed
        missing = set(self.trainable) - {id(parameter) for parameter in parameters}
        if missing:
            names = sorted(self.trainable[key] for key in missing)
            raise ContractBroken(
                f"privacy contract: {len(names)} trainable tensors got no noise, the first is "
                f"{names[0]}; freeze them or use an engine that knows their layer"
            )
        observed.steps += 1
        observed.noise_additions += len(parameters)
        if observed.steps > plan.steps:
            raise ContractBroken(
                f"privacy contract: step {observed.steps} of {plan.steps} planned; epsilon covers "
                "the planned steps only"
            )
        if (observed.steps - 1) % self.every == 0:
            self._measure(parameters, sums)

    def _measure(self, parameters, sums) -> None:
        """Check the size of the clipped sum and the noise on each tensor."""
        plan, observed = self.plan, self.observed
        clipped, noise = [], []
        for parameter in parameters:
            total, noised = sums(parameter)
            clipped.append(total.float().square().sum())
            noise.append((noised - total).float().square().sum())
        norm = torch.stack(clipped).sum().sqrt().item()
        bound = self._batch * plan.sensitivity * (1 + 1e-3)
        if not norm <= bound:
            raise ContractBroken(
                f"privacy contract: at step {observed.steps} the sum of {self._batch} clipped "
                f"gradients has norm {norm:.4g}, above {bound:.4g}; gradients are not clipped"
            )
        for parameter, square in zip(parameters, torch.stack(noise).tolist(), strict=True):
            self._check_noise(self.trainable.get(id(parameter), "?"), square, parameter.numel())
            observed.noise_squared += square
            observed.noise_coordinates += parameter.numel()

    def end_epoch(self) -> None:
        """Refuse an epoch in which every record was drawn exactly once: that is a shuffle."""
        plan = self.plan
        q, k = plan.sample_rate, plan.steps_per_epoch
        chance = plan.num_records * math.log(max(k * q * (1 - q) ** (k - 1), 1e-300))
        if bool((self._seen == 1).all()) and chance < math.log(SIGNIFICANCE):
            raise ContractBroken(
                "privacy contract: every record was drawn exactly once in an epoch, so the "
                "batches are a shuffled partition, not Poisson samples; epsilon does not hold"
            )
        self._seen.zero_()

    def finish(self) -> dict:
        """Check the whole run; return what was observed as plain numbers."""
        from scipy import stats

        plan, observed = self.plan, self.observed
        if observed.steps != plan.steps:
            raise ContractBroken(
                f"privacy contract: {observed.steps} steps were noised, {plan.steps} planned"
            )
        if observed.batches != observed.steps:
            raise ContractBroken(
                f"privacy contract: {observed.batches} batches were drawn, {observed.steps} steps "
                "were noised; a batch was used without noise, or noise was added twice"
            )
        if observed.noise_additions != plan.steps * len(self.trainable):
            raise ContractBroken(
                f"privacy contract: {observed.noise_additions} noise additions, expected "
                f"{plan.steps} steps x {len(self.trainable)} tensors"
            )
        trials = plan.num_records * plan.steps
        if stats.binomtest(observed.draws, trials, plan.sample_rate).pvalue < SIGNIFICANCE:
            raise ContractBroken(
                f"privacy contract: {observed.draws} records were drawn in {plan.steps} steps, "
                f"expected about {plan.batch_size * plan.steps}; the sample rate is not the plan's"
            )
        self._check_dispersion(stats)
        self._check_noise("all tensors", observed.noise_squared, observed.noise_coordinates)
        return asdict(observed) | {
            "noise_std": math.sqrt(observed.noise_squared / observed.noise_coordinates)
        }

    def _check_dispersion(self, stats) -> None:
        """Batch sizes must vary as binomial ones do (chi-squared index of dispersion)."""
        plan, observed = self.plan, self.observed
        expected, variance = plan.batch_size, plan.batch_size * (1 - plan.sample_rate)
        if variance == 0:  # q = 1: every batch is the whole set
            return
        spread = (
            observed.draws_squared - 2 * expected * observed.draws + observed.steps * expected**2
        )
        spread += observed.steps / 12  # Sheppard's correction: sizes are whole numbers
        if stats.chi2.cdf(spread / variance, observed.steps) < SIGNIFICANCE:
            raise ContractBroken(
                f"privacy contract: the sizes of {observed.steps} batches hardly vary, Poisson "
                f"batches of {expected} have a standard deviation of {math.sqrt(variance):.2g}; "
                "epsilon does not hold for batches of a fixed size"
            )

    def _check_noise(self, name: str, square: float, coordinates: int) -> None:
        """The noise must have the plan's standard deviation (Wilson-Hilferty approximation)."""
        ratio = square / (coordinates * self.plan.noise_std**2)
        spread = 2 / (9 * coordinates)
        score = (ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
        # 8 standard deviations; 1 % allows for float32 rounding where tensors are very large
        if not (abs(score) < 8 or abs(ratio - 1) < 0.01):
            raise ContractBroken(
                f"privacy contract: the noise on {name} has standard deviation "
                f"{math.sqrt(square / coordinates):.4g}, the plan says {self.plan.noise_std:.4g}"
            )

    def state(self) -> dict:
        """What was observed, for a checkpoint taken between epochs."""
        return asdict(self.observed)

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self.observed = Observed(**{field.name: state[field.name] for field in fields(Observed)})
