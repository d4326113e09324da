"""Which way of getting a layer's norm and sum is the fastest here, by trying them once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dpmedbench.bookkeeping.layers import Layer
from dpmedbench.bookkeeping.modes import FORMED, GHOST


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


def fastest(layer: Layer, x: torch.Tensor, g: torch.Tensor) -> Way:
    """The fastest way for a layer with input x and output gradient g, both (B, ...).

    Gradients are not kept where they would take more memory than x and g do. Each way is tried
    twice, and the second time counts: the first one allocates and lets libraries choose.
    """
    ways = [Way(GHOST, True, layer.form)]
    small = len(x) * layer.weight.numel() <= x.numel() + g.numel()
    for form in layer.FORMS:
        ways += [Way(FORMED, keep, form) for keep in (True, False) if keep or small]
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
