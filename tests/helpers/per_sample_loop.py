"""Clipped sums of gradients by a loop over the records: what every engine is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def gradients(
    model: nn.Module,
    losses: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    masks: Sequence[Tensor] | None = None,
) -> list[list[Tensor]]:
    """The gradient of each record alone: for each record one tensor a trainable parameter.

    Args:
        losses: (output of the model, targets) -> (B,).
        masks: one bool tensor a parameter, of its shape; gradients are multiplied by them.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for record in range(len(inputs)):
        one = slice(record, record + 1)
        (loss,) = losses(model(inputs[one]), targets[one])
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        if masks is not None:
            gradient = [g * mask for g, mask in zip(gradient, masks, strict=True)]
        found.append(list(gradient))
    return found


def clipped_sums(
    model: nn.Module,
    losses: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    clipping: str,
    thresholds: Sequence[float],
    masks: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Sums over the records of the clipped gradients, one a trainable parameter.

    Args:
        losses: (output of the model, targets) -> (B,).
        clipping: "automatic" for R / (norm + 0.01), else min(1, R / (norm + 1e-6)).
        thresholds: one for flat clipping, one a trainable parameter for per-layer clipping.
        masks: one bool tensor a parameter, of its shape; gradients are multiplied by them
            before they are clipped.
    """
    sums = [torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
    for gradient in gradients(model, losses, inputs, targets, masks):
        norms = torch.stack([g.norm() for g in gradient])
        if len(thresholds) == 1:
            norms = norms.norm().expand(len(gradient))
        for total, g, norm, limit in zip(
            sums, gradient, norms, [*thresholds] * (len(sums) // len(thresholds)), strict=True
        ):
            if clipping == "automatic":
                total += g * (limit / (norm + 0.01))
            else:
                total += g * min(1.0, limit / (norm + 1e-6))
    return sums


def sums_of(engine, losses, inputs, targets, split: int | None = None) -> list[Tensor]:
    """The sums of an engine for one logical batch in physical ones of at most `split` records."""
    size = split or len(inputs)
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        engine.backward(losses(engine.model(x), y))
    return engine.sums()


def limits(model: nn.Module, style: str, r: float = 1.3) -> tuple[float, ...]:
    """(r,) for flat clipping, else thresholds of norm r that differ from tensor to tensor."""
    if style == "flat":
        return (r,)
    spread = torch.arange(1.0, 1 + len([p for p in model.parameters() if p.requires_grad]))
    return tuple((r * spread / spread.norm()).double().tolist())


def equal_limits(model: nn.Module, style: str, r: float) -> tuple[float, ...]:
    """(r,) for flat clipping, else equal thresholds of norm r, one a trainable parameter."""
    tensors = sum(p.requires_grad for p in model.parameters())
    return (r,) if style == "flat" else (r / math.sqrt(tensors),) * tensors


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The norm of a difference over all tensors."""
    pairs = zip(found, wanted, strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))


def assert_equal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Equal to 1e-9 of the norm over all tensors, which is not zero; for float64."""
    size = distance(wanted, [torch.zeros_like(w) for w in wanted])
    assert size > 0
    assert distance(found, wanted) < 1e-9 * size
    assert [f.dtype for f in found] == [w.dtype for w in wanted]


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss (B,) for any output: squares, weighted by place and moved by targets (B,)."""
    flat = outputs.flatten(1)
    place = torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype)
    return (flat * place - targets[:, None]).square().sum(1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal float64 numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
