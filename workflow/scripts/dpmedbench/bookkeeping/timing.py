"""Which way of getting a layer's norm and sum is the fastest here, by trying them once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from dpmedbench.bookkeeping.layers import TILE, UNFOLDED, Layer
from dpmedbench.bookkeeping.modes import FORMED, GHOST

FAR = 8  # times the multiplications of forming the gradient: no ghost norm is faster then


@dataclass(frozen=True)
class Way:
    """How to treat one layer.

    Attributes:
        method: GHOST or FORMED: where the norm comes from.
        keep: whether the sum comes from x and g; else from the gradients that were formed.
        form: one of the layer's FORMS.
        records: of the batch that it is for.
    """

    method: str
    keep: bool
    form: str
    records: int


def ways(layer: Layer, x: torch.Tensor, g: torch.Tensor, flat: bool) -> list[Way]:
    """What may be the fastest for a layer with input x and output gradient g, both (B, ...).

    Left out is what arithmetic rules out, since a trial could take minutes, or more memory than
    training does. With `flat` clipping, where gradients wait for the norms of all layers, none is
    kept that takes more memory than x and g.
    """
    t, d, p = layer.sizes(x, g)
    small = len(x) * layer.weight.numel() <= x.numel() + g.numel()
    keeps = [True, *([False] if small else [])] if flat else [False]
    ghost = [Way(GHOST, True, layer.form, len(x))] if t * (d + p) <= FAR * d * p else []
    return ghost + [
        Way(FORMED, keep, way.form, len(x)) for way in forms(layer, x, g) for keep in keeps
    ]


def forms(layer: Layer, x: torch.Tensor, g: torch.Tensor) -> list[Way]:
    """The ways of forming the gradients and summing them up."""
    t, d, _ = layer.sizes(x, g)
    fitting = [form for form in layer.FORMS if form != UNFOLDED or len(x) * t * d <= TILE]
    return [Way(FORMED, False, form, len(x)) for form in fitting]


def fastest(layer: Layer, x: torch.Tensor, g: torch.Tensor, tried: Iterable[Way]) -> Way:
    """The fastest of the ways `tried`.

    Each is tried twice, and the second time counts: the first one allocates and lets libraries
    choose.
    """
    return min(tried, key=lambda way: _seconds(lambda: _try(layer, x, g, way), x.device))


def differs(device: torch.device) -> bool:
    """Whether the first of a layer's FORMS may be far from the fastest on a device.

    On a CPU it is not. What a GPU takes for a convolution of many groups depends on its libraries.
    """
    return device.type == "cuda"


def _try(layer: Layer, x: torch.Tensor, g: torch.Tensor, way: Way) -> None:
    before, layer.form = layer.form, way.form
    try:
        if way.method == GHOST:
            layer.ghost(x, g)
        else:
            formed = layer.per_sample(x, g)
            torch.linalg.vector_norm(formed.flatten(1), dim=1)
        if way.keep:
            layer.weighted(x, g * 1.0)  # scaled, as the clipped sum is
        else:
            torch.tensordot(formed.new_ones(len(formed)), formed, dims=1)
    finally:
        layer.form = before


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    work()
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
