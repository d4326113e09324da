"""Random sparsification of gradients (Zhu & Blaschko 2021, arXiv:2112.00845, Alg. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Sparsifier:
    """Which coordinates take part in a step: the same for all samples, independent of the data.

    In epoch e = 0..E-1 each coordinate is left out with probability final_rate e / (E - 1), gradual
    cooling from 0. Masks are drawn `refresh` times an epoch, at equal distances, and held between.

    Args:
        shapes: of the trainable parameters.
        final_rate: in [0, 1), the rate of the last epoch.
        refresh: >= 1.
        generator: of the device on which the masks are wanted. The masks are no secret.
    """

    def __init__(
        self,
        shapes: Sequence[torch.Size],
        final_rate: float,
        refresh: int,
        epochs: int,
        steps_per_epoch: int,
        generator: torch.Generator,
    ):
        self.shapes, self.generator = list(shapes), generator
        self.final_rate, self.refresh = final_rate, refresh
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._masks: list[torch.Tensor] | None = None

    def rate(self, step: int) -> float:
        """The share left out at `step`, counted from 1."""
        epoch = (step - 1) // self.steps_per_epoch
        return self.final_rate * epoch / max(1, self.epochs - 1)

    def masks(self, step: int) -> list[torch.Tensor] | None:
        """The coordinates kept at `step`, a bool tensor for each parameter; None where all are.

        To be called for every step in turn; a run goes on at the start of an epoch.
        """
        position = (step - 1) % self.steps_per_epoch
        refresh = min(self.refresh, self.steps_per_epoch)
        if position in {k * self.steps_per_epoch // refresh for k in range(refresh)}:
            rate, generator = self.rate(step), self.generator
            self._masks = [
                torch.rand(shape, generator=generator, device=generator.device) >= rate
                for shape in self.shapes
            ]
        return self._masks if self.rate(step) else None


def masked_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    masks: Sequence[torch.Tensor],
) -> None:
    """A step that leaves masked-out coordinates, and what the optimiser knows of them, as they are.

    Otherwise momentum and weight decay would go on moving weights that got no gradient, and the
    second moments of Adam would decay.
    """
    before = [
        (p.detach().clone(), {k: v.clone() for k, v in _coordinates(optimizer, p).items()})
        for p in parameters
    ]
    optimizer.step()
    with torch.no_grad():
        for p, (value, state), mask in zip(parameters, before, masks, strict=True):
            p.copy_(torch.where(mask, p, value))
            for key, new in _coordinates(optimizer, p).items():
                new.copy_(torch.where(mask, new, state.get(key, torch.zeros_like(new))))


def _coordinates(optimizer, p) -> dict[str, torch.Tensor]:
    """What the optimiser keeps for each coordinate of p."""
    state = optimizer.state.get(p, {})
    return {k: v for k, v in state.items() if getattr(v, "shape", None) == p.shape and p.ndim}
