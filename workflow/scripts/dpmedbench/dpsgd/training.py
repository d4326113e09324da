"""What every private engine has on top of its clipped sums: noise, masks, thresholds, the step."""

from __future__ import annotations

import torch

from dpmedbench import mechanisms
from dpmedbench.dpsgd.clipping import factors
from dpmedbench.dpsgd.quantile import QuantileThreshold
from dpmedbench.dpsgd.sparsification import Sparsifier, masked_step
from dpmedbench.privacy.contract import ContractMonitor
from dpmedbench.privacy.plan import PrivacyPlan, clipping_norm


def build(
    mechanism: dict,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: PrivacyPlan,
    monitor: ContractMonitor,
    randomness,
    masks: torch.Generator,
) -> PrivateTraining:
    """The training of a mechanism, as the configuration describes it.

    Args:
        mechanism: the section of the configuration.
        masks: where the coordinates of random sparsification are drawn, on the model's device.
    """
    engine = mechanisms.load(mechanism["engine"]).build(
        model, mechanism["mode"], mechanism["clipping"], plan.thresholds, plan
    )
    sparse, adaptive = mechanism["sparsification"], mechanism["adaptive"]
    return PrivateTraining(
        engine,
        optimizer,
        plan,
        monitor,
        randomness,
        mechanism["clipping"],
        sparse
        and Sparsifier(
            [p.shape for p in engine.parameters],
            sparse["final_rate"],
            sparse["refresh"],
            plan.epochs,
            plan.steps_per_epoch,
            masks,
        ),
        plan.count_noise
        and QuantileThreshold(
            plan.thresholds[0],
            adaptive["target"],
            adaptive["learning_rate"],
            plan.batch_size,
            plan.count_noise,
        ),
    )


class PrivateTraining:
    """One engine while it trains: clipped sums in, noised updates out.

    The update is (sum of clipped gradients + noise) / plan.batch_size: the divisor is a public
    number and not the realised size of the batch. The monitor sees the sums and their noise.

    Args:
        engine: as `mechanisms` describes it.
        optimizer: over the engine's parameters.
        plan: gives the noise and the divisor.
        monitor: watches that the plan is kept.
        randomness: where the noise comes from.
        clipping: the engine's clipping function.
        sparsifier: draws the coordinates of a step; None: all.
        quantile: moves the threshold after each step; None: it stays.
    """

    def __init__(
        self,
        engine,
        optimizer: torch.optim.Optimizer,
        plan: PrivacyPlan,
        monitor: ContractMonitor,
        randomness,
        clipping: str,
        sparsifier: Sparsifier | None = None,
        quantile: QuantileThreshold | None = None,
    ):
        self.engine, self.optimizer = engine, optimizer
        self.plan, self.monitor, self.randomness = plan, monitor, randomness
        self.clipping, self.sparsifier, self.quantile = clipping, sparsifier, quantile
        self.model = engine.model
        self._norms: list[torch.Tensor] = []
        self._clipped: list[torch.Tensor] = []
        self._prepared = 0
        self._earlier: dict[str, str] = {}

    def backward(self, losses: torch.Tensor) -> None:
        """Clip and add the gradients of one physical batch; losses: (B,), B >= 1."""
        self._prepare()
        self.engine.backward(losses)

    def step(self) -> None:
        """Add noise once and update the weights; an empty batch updates by noise alone."""
        self._prepare()
        engine, masks = self.engine, self.engine.masks
        clipping_norm = self.clipping_norm
        sums = engine.sums()
        released = self._noised(sums, self.plan.noise_std(self._step, clipping_norm))
        self.monitor.noised(engine.parameters, sums, released, clipping_norm, masks)
        torch._foreach_div_(released, self.plan.batch_size)
        for parameter, gradient in zip(engine.parameters, released, strict=True):
            parameter.grad = gradient
        if masks is None:
            self.optimizer.step()
        else:
            masked_step(self.optimizer, engine.parameters, masks)
        self.optimizer.zero_grad()
        self._follow_norms()

    def _noised(self, sums: list[torch.Tensor], std: float) -> list[torch.Tensor]:
        """Sums + noise; one draw for all tensors, which costs the device less."""
        sizes = [total.numel() for total in sums]
        flat = self.randomness.normal((sum(sizes),), sums[0].dtype, sums[0].device).mul_(std)
        with torch.no_grad():  # in which views may be written to
            noised = [
                noise.view_as(total) for noise, total in zip(flat.split(sizes), sums, strict=True)
            ]
            if self.engine.masks is not None:
                torch._foreach_mul_(noised, self.engine.masks)
            torch._foreach_add_(noised, sums)
        return noised

    @property
    def trials(self) -> int:
        """How often the engine has tried ways of its work."""
        return getattr(self.engine, "trials", 0)

    @property
    def clipping_norm(self) -> float:
        """The longest that a clipped gradient can be, over all thresholds together, now."""
        return clipping_norm(self.engine.thresholds)

    def gradient_norms(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Norms over all parameters (n,) since the last call, and which gradients were shrunk.

        The latter is bool, (n, 1) for flat, (n, L) for per-layer clipping. None when every batch
        was empty or the engine cannot tell.
        """
        if not self._norms:
            return None
        found = torch.cat(self._norms), torch.cat(self._clipped)
        self._norms, self._clipped = [], []
        return found

    def record(self) -> dict:
        """How each layer's norm was got; the adapted threshold; the engine's own epsilon."""
        found = {"gradient_norms": self._methods()}
        if self.quantile:
            found["adapted_threshold"] = self.quantile.value
        if hasattr(self.engine, "own_epsilon"):
            found["epsilon_of_the_engine"] = self.engine.own_epsilon(self.plan.steps)
        return found

    def state(self) -> dict:
        """What a run between epochs must know to go on."""
        return {
            "randomness": self.randomness.state(),
            "masks": self.sparsifier.generator.get_state() if self.sparsifier else None,
            "threshold": self.quantile.value if self.quantile else None,
            "engine": self.engine.state() if hasattr(self.engine, "state") else None,
            "methods": self._methods(),
        }

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self.randomness.restore(state["randomness"])
        if self.sparsifier:
            self.sparsifier.generator.set_state(state["masks"].cpu())
        if self.quantile:
            self.quantile.value = state["threshold"]
        if state["engine"]:
            self.engine.restore(state["engine"])
        self._earlier = state["methods"]

    def _methods(self) -> dict[str, str]:
        """How each layer's norm was got; before a batch that of the run that was gone on from."""
        return self.engine.methods() or self._earlier

    @property
    def _step(self) -> int:
        """The step that is being made, counted from 1."""
        return self.monitor.observed.steps + 1

    def _prepare(self) -> None:
        """Set the engine up for the step that is being made, once."""
        if self._prepared == self._step:
            return
        self._prepared = self._step
        if self.sparsifier:
            self.engine.masks = self.sparsifier.masks(self._step)
        if self.quantile:
            self.engine.thresholds = (self.quantile.value,)

    def _follow_norms(self) -> None:
        norms = self.engine.norms()
        unclipped = records = 0
        if norms is not None:
            shrunk = factors(norms, self.clipping, self.engine.thresholds) < 1
            self._norms.append(norms.norm(dim=1))
            self._clipped.append(shrunk)
            if self.quantile:  # a record without a gradient counts as one that is not there
                records = int(self._norms[-1].count_nonzero())
                unclipped = records - int(shrunk.sum())
        if self.quantile:
            device = self.engine.parameters[0].device
            noise = self.randomness.normal((1,), self.engine.parameters[0].dtype, device).item()
            self.quantile.update(unclipped, records, noise)
