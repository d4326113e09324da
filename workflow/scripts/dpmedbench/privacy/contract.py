"""Whether a private cell kept its plan, checked while it trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import nn

from dpmedbench.errors import UserError
from dpmedbench.privacy import mixing
from dpmedbench.privacy.plan import PrivacyPlan
from dpmedbench.privacy.sampling import SAMPLERS

# A kept promise is called broken less than once in 10^9 cells.
SIGNIFICANCE = 1e-9


class ContractBroken(UserError):
    """What happened is not what was promised; the sentence says which promise broke."""


@dataclass
class Observed:
    """What a run did so far; plain numbers, so that a checkpoint holds them.

    `noise_squared` is in units of the planned variance, over the `noise_coordinates` measured.
    """

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

    `drew` is called for each logical batch, `noised` once for each step, `finish` at the end.
    Each raises ContractBroken with the promise that broke. With `every` above 1 the size of the
    clipped sum and of the noise is measured on one step in `every`, which waits for the device;
    everything else is checked on all steps.
    """

    def __init__(self, plan: PrivacyPlan, model: nn.Module, num_records: int, every: int = 1):
        if num_records != plan.num_records:
            raise ContractBroken(
                f"privacy contract: the plan is for {plan.num_records} training records, found "
                f"{num_records}; the sample rate and epsilon would be wrong"
            )
        self.plan = plan
        self._mixing = mixing.candidates(model)
        self._check_layers()
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
        self._check_sampler(sampler)
        self._check_layers()
        self._batch = len(indices)
        counts = torch.bincount(indices, minlength=plan.num_records)
        if self._batch and counts.max() > 1:
            raise ContractBroken(
                f"privacy contract: record {int(counts.argmax())} is {int(counts.max())} times in "
                "one batch; clipping and epsilon are for once"
            )
        if plan.sampling == "fixed_size" and self._batch != plan.batch_size:
            raise ContractBroken(
                f"privacy contract: a batch has {self._batch} records, the plan says "
                f"{plan.batch_size} in each"
            )
        observed.batches += 1
        observed.draws += self._batch
        observed.draws_squared += self._batch**2
        observed.empty_batches += self._batch == 0
        self._seen += counts
        if observed.batches % plan.steps_per_epoch == 0:
            self._end_epoch()

    def _check_layers(self) -> None:
        """No layer may mix records; looked at in every step, since train() and eval() change it."""
        for name, layer in self._mixing.items():
            if problem := mixing.problem(layer):
                raise ContractBroken(f"privacy contract: layer {name} {problem}")

    def _check_sampler(self, sampler) -> None:
        plan, wanted = self.plan, SAMPLERS[self.plan.sampling]
        if type(sampler) is not wanted:
            raise ContractBroken(
                f"privacy contract: batches come from {type(sampler).__name__}, the plan needs "
                f"{wanted.__name__}; epsilon does not hold for batches drawn in another way"
            )
        rate = plan.sample_rate if plan.sampling == "poisson" else plan.batch_size
        found = sampler.sample_rate if plan.sampling == "poisson" else sampler.batch_size
        if sampler.num_records != plan.num_records or found != rate:
            word = "at rate" if plan.sampling == "poisson" else "in batches of"
            raise ContractBroken(
                f"privacy contract: the sampler draws from {sampler.num_records} records {word} "
                f"{found:.6g}, the plan says {plan.num_records} {word} {rate:.6g}"
            )

    def _end_epoch(self) -> None:
        """An epoch is a partition of the records where shuffled, and never one by chance."""
        plan = self.plan
        partition = bool((self._seen == 1).all())
        if plan.sampling == "shuffled" and not partition:
            raise ContractBroken(
                f"privacy contract: {int((self._seen == 0).sum())} records were not drawn in an "
                f"epoch and {int((self._seen > 1).sum())} more than once; epsilon is for once each"
            )
        if partition and self._chance_of_a_partition() < math.log(SIGNIFICANCE):
            raise ContractBroken(
                "privacy contract: every record was drawn exactly once in an epoch, so the "
                f"batches are a shuffled partition, not {plan.sampling} samples; epsilon does not "
                "hold"
            )
        self._seen.zero_()

    def _chance_of_a_partition(self) -> float:
        """The logarithm of the chance that an honest epoch draws each record once."""
        n, b, k = self.plan.num_records, self.plan.batch_size, self.plan.steps_per_epoch
        if self.plan.sampling == "shuffled":
            return 0.0
        if self.plan.sampling == "fixed_size":  # ways to part n into k sets, among all draws
            return math.lgamma(n + 1) - k * (math.lgamma(b + 1) + math.log(math.comb(n, b)))
        q = self.plan.sample_rate
        return n * math.log(max(k * q * (1 - q) ** (k - 1), 1e-300))

    def noised(
        self,
        parameters: Sequence[nn.Parameter],
        sums: Sequence[torch.Tensor],
        released: Sequence[torch.Tensor],
        clipping_norm: float,
        kept: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Record the noise of one step.

        Args:
            parameters: those that got noise.
            sums: of the clipped per-sample gradients, one for each of them and of its shape.
            released: those sums with their noise.
            clipping_norm: the longest that a clipped gradient can be in this step.
            kept: bool masks, one a parameter and of its shape, where only some coordinates are
                released: the others must have neither sum nor noise.
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
            kept = kept or [None] * len(parameters)
            self._measure(parameters, sums, released, clipping_norm, kept)

    def _measure(self, parameters, sums, released, clipping_norm, kept) -> None:
        """Check the size of the clipped sum and the noise on each tensor."""
        plan, observed = self.plan, self.observed
        std = plan.noise_std(observed.steps, clipping_norm)
        names = [self.trainable.get(id(parameter), "?") for parameter in parameters]
        found = [_sizes(*tensors) for tensors in zip(sums, released, kept, strict=True)]
        clipped, squares, coordinates, leaks = torch.stack(found, dim=1).tolist()  # one wait
        for name, leaked in zip(names, leaks, strict=True):
            if leaked:
                raise ContractBroken(
                    f"privacy contract: {leaked:.0f} coordinates of {name} outside of the sparse "
                    "mask are not 0; they would be released without noise"
                )
        bound = self._batch * clipping_norm * (1 + 1e-3)
        norm = math.sqrt(sum(clipped))
        if not norm <= bound:
            raise ContractBroken(
                f"privacy contract: at step {observed.steps} the sum of {self._batch} clipped "
                f"gradients has norm {norm:.4g}, above {bound:.4g}; gradients are not clipped"
            )
        for name, square, count in zip(names, squares, coordinates, strict=True):
            self._check_noise(name, square / std**2, int(count))
            observed.noise_squared += square / std**2
            observed.noise_coordinates += int(count)

    def _check_noise(self, name: str, square: float, coordinates: int) -> None:
        """The noise must have the planned standard deviation (Wilson-Hilferty approximation).

        Args:
            square: the squared noise summed over `coordinates`, in units of the planned variance.
        """
        if not coordinates:
            return
        ratio = square / coordinates
        spread = 2 / (9 * coordinates)
        score = (ratio ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
        # 8 standard deviations; 1 % allows for float32 rounding where tensors are very large
        if not (abs(score) < 8 or abs(ratio - 1) < 0.01):
            raise ContractBroken(
                f"privacy contract: the noise on {name} has {math.sqrt(ratio):.4g} times the "
                "planned standard deviation"
            )

    def finish(self) -> dict:
        """Check the whole run.

        Returns:
            What was observed as plain numbers, and `noise_ratio`: the realised standard deviation
            of the noise over the planned one.
        """
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
        if plan.sampling == "poisson":
            self._check_sizes()
        self._check_noise("all tensors", observed.noise_squared, observed.noise_coordinates)
        return asdict(observed) | {
            "noise_ratio": math.sqrt(observed.noise_squared / observed.noise_coordinates)
        }

    def _check_sizes(self) -> None:
        """Poisson batch sizes must be binomial, in their sum and in their dispersion."""
        from scipy import stats

        plan, observed = self.plan, self.observed
        trials = plan.num_records * plan.steps
        if stats.binomtest(observed.draws, trials, plan.sample_rate).pvalue < SIGNIFICANCE:
            raise ContractBroken(
                f"privacy contract: {observed.draws} records were drawn in {plan.steps} steps, "
                f"expected about {plan.batch_size * plan.steps}; the sample rate is not the plan's"
            )
        expected, variance = plan.batch_size, plan.batch_size * (1 - plan.sample_rate)
        if variance == 0:  # q = 1: every batch is the whole set
            return
        spread = (
            observed.draws_squared - 2 * expected * observed.draws + observed.steps * expected**2
        )
        spread += observed.steps / 12  # Sheppard's correction: sizes are whole numbers
        # chi-squared index of dispersion
        if stats.chi2.cdf(spread / variance, observed.steps) < SIGNIFICANCE:
            raise ContractBroken(
                f"privacy contract: the sizes of {observed.steps} batches hardly vary, Poisson "
                f"batches of {expected} have a standard deviation of {math.sqrt(variance):.2g}; "
                "epsilon does not hold for batches of a fixed size"
            )

    def state(self) -> dict:
        """What was observed, for a checkpoint taken between epochs."""
        return asdict(self.observed)

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self.observed = Observed(**{field.name: state[field.name] for field in fields(Observed)})


def _sizes(total: torch.Tensor, noised: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Of one tensor, (4,) float64 on its device: the squared norms of the clipped sum and of its
    noise, the coordinates released, and how many of the others are not 0."""
    total, noised = total.detach(), noised.detach()
    noise, counts = noised - total, torch.tensor([total.numel(), 0], dtype=torch.float64)
    if mask is not None:
        leaked = noised.masked_fill(mask, 0).count_nonzero()
        counts, noise = torch.stack([mask.sum(), leaked]).double(), noise * mask
    squares = [part.square().sum(dtype=torch.float64) for part in (total, noise)]
    return torch.cat([torch.stack(squares), counts.to(total.device, non_blocking=True)])
