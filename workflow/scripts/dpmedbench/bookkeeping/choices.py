"""How each layer's norm and sum are got: by arithmetic, as published, or by trying."""

from __future__ import annotations

from dataclasses import astuple

import torch

from dpmedbench.bookkeeping import timing
from dpmedbench.bookkeeping.layers import Layer, wide
from dpmedbench.bookkeeping.modes import FORMED, GHOST, method
from dpmedbench.bookkeeping.timing import Way
from dpmedbench.mechanisms import TWO_PASSES

GROWN = 1.5  # times the batch that a way was found on: tried again, since the best may be another


class Choices:
    """What `mode` does with each layer, for `flat` clipping or not.

    mix_time tries all ways. The other modes take theirs by arithmetic; how gradients are formed,
    which changes nothing but the time, is tried where devices differ in it.
    """

    def __init__(self, mode: str, flat: bool):
        self.mode, self.flat = mode, flat
        self._found: dict[str, Way] = {}  # by the name of the layer
        self.trials = 0  # of layers, so far

    def of(self, layer: Layer, x: torch.Tensor, g: torch.Tensor, alone: bool) -> tuple[str, bool]:
        """GHOST or FORMED for the norm, and whether x and g are kept for the sum.

        The form of `layer` is set.

        Args:
            x: its input, (B, ...).
            g: the gradient of its output.
            alone: whether the weight's gradient is of this use alone; else it must be formed.
        """
        sizes = layer.sizes(x, g) if alone else None
        if sizes is not None and self.mode == "mix_time":
            x, g = wide(x), wide(g)
            way = self._fastest(layer, x, g, timing.ways(layer, x, g, self.flat))
            return way.method, way.keep and self.flat
        how = method(self.mode, sizes)
        if how == FORMED and len(layer.FORMS) > 1 and timing.differs(x.device):
            self._fastest(layer, x, g, timing.forms(layer, x, g))
        from_both = how == GHOST or (sizes is not None and self.mode == "mix_ghost")
        return how, from_both and self.flat and self.mode not in TWO_PASSES

    def _fastest(self, layer: Layer, x: torch.Tensor, g: torch.Tensor, tried: list[Way]) -> Way:
        way = self._found.get(layer.name)
        if way is None or len(x) >= GROWN * way.records:
            way = self._found[layer.name] = timing.fastest(layer, x, g, tried)
            self.trials += 1
        layer.form = way.form
        return way

    def state(self) -> dict:
        """What trying has found, as plain values."""
        return {name: astuple(way) for name, way in self._found.items()}

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self._found = {name: Way(*way) for name, way in state.items()}
