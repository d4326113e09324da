"""Flat clipping without an engine: what anybody can write, and engines must beat."""

from __future__ import annotations

import torch
from torch.func import functional_call, grad, vmap

from dpmedbench.dpsgd.clipping import factors


class _Rival:
    """As an engine of `mechanisms`, but for `backward`, which takes (images, targets)."""

    masks = None

    def __init__(self, model: torch.nn.Module, loss, thresholds: tuple[float, ...]):
        self.model, self.loss, self.thresholds = model, loss, thresholds
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._sums = [torch.zeros_like(p) for p in self.parameters]

    def sums(self) -> list[torch.Tensor]:
        """The clipped sums since the last call."""
        sums, self._sums = self._sums, [torch.zeros_like(p) for p in self.parameters]
        return sums

    def norms(self) -> None:
        """None: nobody asks here."""


class Loop(_Rival):
    """One record after the other."""

    def backward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add the clipped gradient of each record."""
        for image, target in zip(*batch, strict=True):
            loss = self.loss(self.model(image[None]), target[None])[0]
            gradient = torch.autograd.grad(loss, self.parameters)
            norm = torch.stack(torch._foreach_norm(gradient)).norm().view(1, 1)
            factor = factors(norm, "abadi", self.thresholds).item()
            torch._foreach_add_(self._sums, gradient, alpha=factor)


class Vmap(_Rival):
    """All records at once by torch.func."""

    def backward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add the clipped gradients of the batch."""
        values = dict(self.model.named_parameters())

        def of_one(values, image, target):
            return self.loss(functional_call(self.model, values, (image[None],)), target[None])[0]

        found = vmap(grad(of_one), in_dims=(None, 0, 0))(
            {name: value.detach() for name, value in values.items()}, *batch
        )
        squares = sum(g.flatten(1).square().sum(1) for g in found.values())
        weights = factors(squares.sqrt()[:, None], "abadi", self.thresholds)[:, 0]
        for total, g in zip(self._sums, found.values(), strict=True):
            total += torch.einsum("b,b...->...", weights, g)
