"""Ordinary training: the mean gradient of the batch, no clipping, no noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dpmedbench.mechanisms import Capabilities, Mode

if TYPE_CHECKING:
    import torch

CAPABILITIES = Capabilities(private=False, modes={"autograd": Mode({("none", "none")})})


class OrdinaryTraining:
    """Averages over the logical batch, however many physical batches it came in.

    It has what the training loop asks of `dpsgd.training.PrivateTraining`.
    """

    clipping_norm = math.nan
    trials = 0

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer):
        self.model = model
        self.optimizer = optimizer
        self._records = 0

    def backward(self, losses: torch.Tensor) -> None:
        """Add the gradients of one physical batch; losses: (B,)."""
        losses.sum().backward()
        self._records += len(losses)

    def step(self) -> None:
        """Update the weights with the mean gradient."""
        import torch

        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], self._records)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._records = 0

    def gradient_norms(self) -> None:
        """None: per-sample norms are not computed."""

    def record(self) -> dict:
        """Nothing to tell."""
        return {}

    def state(self) -> dict:
        """Nothing of its own."""
        return {}

    def restore(self, state: dict) -> None:
        """Nothing to restore."""
