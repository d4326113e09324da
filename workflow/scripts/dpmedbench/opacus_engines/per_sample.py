"""Per-sample gradients by Opacus (hooks, functorch, expanded weights) and its optimizers."""

from __future__ import annotations

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights
from opacus.optimizers import DPOptimizer, DPPerLayerOptimizer
from torch import Tensor, nn

from dpmedbench.dpsgd.clipping import factors
from dpmedbench.errors import UserError
from dpmedbench.opacus_engines.base import Engine


class AutomaticOptimizer(DPOptimizer):
    """Automatic clipping on Opacus' interface; `max_grad_norm` is (R,) or one a parameter."""

    def clip_and_accumulate(self) -> None:
        norms = _norms(self.grad_samples)
        if len(self.max_grad_norm) == 1:
            norms = norms.norm(dim=1, keepdim=True)
        weights = factors(norms, "automatic", self.max_grad_norm).expand(-1, len(self.params))
        for parameter, weight in zip(self.params, weights.unbind(1), strict=True):
            clipped = torch.einsum("i,i...", weight, parameter.grad_sample)
            if parameter.summed_grad is None:
                parameter.summed_grad = clipped
            else:
                parameter.summed_grad += clipped


class PerSampleEngine(Engine):
    """Forms every per-sample gradient, masks it, clips it, adds it up."""

    slot = "grad_sample"
    two_passes = False

    def _wrap(self, model: nn.Module, clipping: str, thresholds: tuple[float, ...]) -> nn.Module:
        if clipping == "automatic":
            kind = AutomaticOptimizer
        else:
            kind = DPOptimizer if self._flat else DPPerLayerOptimizer
            scalar = [n for n, p in zip(self._names, self.parameters, strict=True) if not p.ndim]
            if scalar and not self._flat:
                raise UserError(
                    f"model: found the scalar parameter {scalar[0]}, which Opacus cannot clip per "
                    "layer, expected at least one dimension; use shape (1,) or clipping_style flat"
                )
        self._optimizer = kind(
            torch.optim.SGD(self.parameters),  # it never steps
            noise_multiplier=0.0,
            max_grad_norm=thresholds,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        if self.mode == "ew":
            return GradSampleModuleExpandedWeights(model, loss_reduction="sum")
        return GradSampleModule(
            model, loss_reduction="sum", force_functorch=self.mode == "functorch"
        )

    def _limit(self, thresholds: tuple[float, ...]) -> None:
        match self._optimizer:
            case DPPerLayerOptimizer():
                self._optimizer.max_grad_norms = thresholds
            case AutomaticOptimizer():
                self._optimizer.max_grad_norm = thresholds
            case _:
                (self._optimizer.max_grad_norm,) = thresholds

    def _clip(self, losses: Tensor) -> None:
        for number, mask in enumerate(self.masks or ()):
            self.parameters[number].grad_sample = self.parameters[number].grad_sample * mask
        self._optimizer.clip_and_accumulate()
        norms = _norms(self._optimizer.grad_samples)
        self._norms.append(norms.norm(dim=1, keepdim=True) if self._flat else norms)

    def sums(self) -> list[Tensor]:
        """The clipped sums since the last call, one a parameter; zeros where nothing came."""
        found = [
            torch.zeros_like(p) if p.summed_grad is None else p.summed_grad for p in self.parameters
        ]
        for parameter in self.parameters:
            parameter.summed_grad = None
        return found


def _norms(gradients: list[Tensor]) -> Tensor:
    """Norms (B, L) of per-sample gradients (B, *shape)."""
    return torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients], dim=1)
