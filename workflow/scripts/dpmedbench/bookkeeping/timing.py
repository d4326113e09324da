"""Which way of getting a layer's norm and sum is the fastest here, by trying them once."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    """

    method: str
    keep: bool
    form: str


def fastest(layer: Layer, x: torch.Tensor, g: torch.Tensor, flat: bool) -> Way:
    """The fastest way for a layer with input x and output gradient g, both (B, ...).

    Each way is tried twice, and the second time counts: the first one allocates and lets libraries
    choose. Ways that arithmetic rules out are not tried, since a trial could take minutes, or more
    memory than training does. With `flat` clipping, where gradients wait for the norms of all
    layers, none is kept that takes more memory than x and g.
    """
    t, d, p = layer.sizes(x, g)
    small = len(x) * layer.weight.numel() <= x.numel() + g.numel()
    keeps = [True, *([False] if small else [])] if flat else [False]
    forms = [form for form in layer.FORMS if form != UNFOLDED or len(x) * t * d <= TILE]
    ways = [Way(GHOST, True, layer.form)] if t * (d + p) <= FAR * d * p else []
    ways += [Way(FORMED, keep, form) for form in forms for keep in keeps]
    return min(ways, key=lambda way: _seconds(lambda: _try(layer, x, g, way), x.device))


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
