"""Norms first, clipped sums from a second backward pass, by Opacus' fast gradient clipping."""

from __future__ import annotations

import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from dpmedbench.dpsgd.clipping import factors
from dpmedbench.errors import UserError
from dpmedbench.opacus_engines.base import Engine


class FastGradientClipping(GradSampleModuleFastGradientClipping):
    """Opacus' module, which names the layer that it cannot do."""

    def capture_activations_hook(self, module, forward_input, _forward_output) -> None:
        try:
            super().capture_activations_hook(module, forward_input, _forward_output)
        except NotImplementedError as error:
            name = next(name for name, layer in self._module.named_modules() if layer is module)
            raise UserError(
                f"model: found layer {name} ({type(module).__name__}) used twice before a backward "
                "pass, which ghost norms cannot do; use mode hooks of engine opacus"
            ) from error


class AutomaticFastGradientClipping(FastGradientClipping):
    """Automatic clipping on Opacus' interface."""

    def get_clipping_coef(self) -> Tensor:
        return factors(self.get_norm_sample()[:, None], "automatic", (self.max_grad_norm,))[:, 0]


class GhostEngine(Engine):
    """Never forms all per-sample gradients at once: two backward passes instead."""

    slot = "_norm_sample"
    two_passes = True

    def _wrap(self, model: nn.Module, clipping: str, thresholds: tuple[float, ...]) -> nn.Module:
        self._forget()
        automatic = clipping == "automatic"
        kind = AutomaticFastGradientClipping if automatic else FastGradientClipping
        return kind(model, loss_reduction="sum")

    def _limit(self, thresholds: tuple[float, ...]) -> None:
        (self.model.max_grad_norm,) = thresholds

    def _clip(self, losses: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        weights = self.model.get_clipping_coef()
        self._norms.append(self.model.per_sample_gradient_norms[:, None])
        self.model.disable_hooks()
        (weights * losses).sum().backward()
        self.model.enable_hooks()
        for total, parameter in zip(self._sums, self.parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad

    def sums(self) -> list[Tensor]:
        """The clipped sums since the last call, one a parameter; zeros where nothing came."""
        found = self._sums
        self._forget()
        return found

    def _forget(self) -> None:
        self._sums = [torch.zeros_like(p) for p in self.parameters]
