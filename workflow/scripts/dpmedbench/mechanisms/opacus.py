"""DP-SGD by Opacus (Yousefpour et al. 2021, arXiv:2109.12298): GradSampleModule + DPOptimizer.

`PrivacyEngine.make_private` is not used: it derives the sample rate and the divisor from the
length of a loader (1/len, int(N q)) and hands back a new loader that is easily left unused. Here
the plan gives sampler, divisor and noise, and the monitor watches what Opacus does with them.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError
from dpmedbench.mechanisms import Capabilities

if TYPE_CHECKING:
    import torch

    from dpmedbench.privacy.contract import ContractMonitor
    from dpmedbench.privacy.plan import PrivacyPlan

CAPABILITIES = Capabilities(
    "Opacus", private=True, combinations=frozenset({("abadi", "flat"), ("abadi", "per_layer")})
)


def build(model, optimizer, plan, monitor, generator) -> OpacusEngine:
    """The engine for `plan`; noise comes from `generator` (on the model's device)."""
    return OpacusEngine(model, optimizer, plan, monitor, generator)


class OpacusEngine:
    """Per-sample gradients by hooks, clipping and noise by DPOptimizer.

    Flat clipping for a plan with one threshold, per tensor for one with a threshold a tensor.
    The update is (sum of clipped gradients + noise) / plan.batch_size, so that the divisor is a
    public number and not the realised size of the batch.

    Raises:
        UserError: naming the layers that Opacus cannot make private.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: PrivacyPlan,
        monitor: ContractMonitor,
        generator: torch.Generator,
    ):
        from opacus import GradSampleModule
        from opacus.optimizers import get_optimizer_class
        from opacus.validators import ModuleValidator

        # it comes at every step of a network whose input, the image, needs no gradient
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        for name, layer in model.named_modules():
            problems = [] if any(layer.children()) else ModuleValidator.validate(layer)
            if problems:
                raise UserError(
                    f"model: Opacus cannot make layer {name} ({type(layer).__name__}) private, "
                    f"replace it: {problems[0]}"
                )
        self.model = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
        self.flat = len(plan.thresholds) == 1
        self.thresholds = plan.thresholds
        kind = get_optimizer_class(
            clipping="flat" if self.flat else "per_layer",
            distributed=False,
            grad_sample_mode="hooks",
        )
        self.optimizer = kind(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.thresholds[0] if self.flat else list(plan.thresholds),
            expected_batch_size=plan.batch_size,
            loss_reduction="mean",
            generator=generator,
        )
        self.optimizer.attach_step_hook(self._noised)
        self.monitor = monitor
        self.generator = generator
        self._divisor = plan.batch_size
        self._norms: list[torch.Tensor] = []
        self._empty = True  # the logical batch so far

    def backward(self, losses: torch.Tensor, last: bool) -> None:
        """Clip and add the gradients of one physical batch; losses: (B,), B >= 1."""
        losses.sum().backward()
        for parameter in self.optimizer.params:
            # under autocast they come in bfloat16, whose norms are wrong by up to 0.4 %: clipping
            # with those would break the sensitivity
            parameter.grad_sample = parameter.grad_sample.to(parameter.dtype)
        self._norms.append(self._tensor_norms())
        self._empty = False
        if not last:
            self.optimizer.signal_skip_step(True)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def step(self) -> None:
        """Add noise once and update the weights; an empty batch updates by noise alone."""
        if self._empty:
            for parameter in self.optimizer.params:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._empty = True

    def gradient_norms(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Per-sample gradient norms since the last call, and which gradients were clipped.

        Returns:
            norms (n,) over all parameters; clipped bool (n,) for flat, (n, L) for per-layer
            clipping. None when every batch was empty.
        """
        import torch

        if not self._norms:
            return None
        tensors = torch.cat(self._norms)
        self._norms = []
        norms = tensors.norm(dim=1)
        limits = norms.new_tensor(self.thresholds)
        return norms, (norms if self.flat else tensors) > limits

    def state(self) -> dict:
        """The state of the noise generator."""
        return {"generator": self.generator.get_state()}

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self.generator.set_state(state["generator"].cpu())

    def _tensor_norms(self) -> torch.Tensor:
        """Norms of the per-sample gradients, (B, L)."""
        import torch

        return torch.stack(
            [p.grad_sample.flatten(1).norm(dim=1).detach() for p in self.optimizer.params], dim=1
        )

    def _noised(self, optimizer) -> None:
        # grad is already divided by the expected batch size when Opacus calls this
        self.monitor.noised(
            optimizer.params,
            lambda p: (p.summed_grad.view_as(p), p.grad * self._divisor),
        )
