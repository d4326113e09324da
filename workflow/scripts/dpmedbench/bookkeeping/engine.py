"""Book-Keeping: clipped gradients from one forward and one backward pass (Bu et al. 2023).

Autograd computes the gradients of the activations only (ghost differentiation). What it passes
by, the input x and the output gradient g of each layer, is kept (book-keeping), and the norms of
the per-sample gradients and then their clipped sum come from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dpmedbench.bookkeeping.choices import Choices
from dpmedbench.bookkeeping.guard import Guard
from dpmedbench.bookkeeping.kinds import layers_of
from dpmedbench.bookkeeping.layers import Layer, wide
from dpmedbench.bookkeeping.modes import GHOST, MODES
from dpmedbench.dpsgd.clipping import factors
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import FLAT, TWO_PASSES
from dpmedbench.precision import keep_float32


class BookKeeper:
    """The sums of clipped per-sample gradients of a model.

    The forward passes of the model's layers are recorded until `detach`; calls under `no_grad`
    are not touched. Per-sample losses go to `backward`, once for each physical batch; `sums` gives
    what came together and forgets it. No noise is added here.

    Args:
        model: any model whose trainable parameters lie in the layers of `kinds.KINDS`, with the
            batch in the first dimension throughout.
        mode: one of MODES.
        clipping: "abadi", "automatic" or "adaptive", as in `dpsgd.clipping`.
        thresholds: (R,) for one norm over all parameters, or one for each trainable tensor. May be
            assigned between steps.

    Raises:
        UserError: naming the layer that holds a trainable parameter and is not supported, or the
            argument.
    """

    def __init__(
        self,
        model: nn.Module,
        mode: str = "mix_opt",
        clipping: str = "abadi",
        thresholds: Sequence[float] = (1.0,),
    ):
        if mode not in MODES:
            raise UserError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}")
        functions = [function for function, _ in FLAT]
        if clipping not in functions:
            raise UserError(f"clipping: found {clipping!r}, expected one of {', '.join(functions)}")
        self.model, self.mode, self.clipping = model, mode, clipping
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        keep_float32()
        self.parameters = list(trainable.values())
        self.thresholds = tuple(thresholds)
        self.flat = len(self.thresholds) == 1
        if not self.flat and len(self.thresholds) != len(self.parameters):
            raise UserError(
                f"thresholds: found {len(self.thresholds)}, expected 1 or one for each of "
                f"{len(self.parameters)} trainable tensors"
            )
        if mode in TWO_PASSES and not self.flat:
            raise UserError(f"mode {mode}: found per-layer clipping, expected flat; use mix_opt")
        self.masks: list[torch.Tensor] | None = None
        self._index = {id(p): number for number, p in enumerate(self.parameters)}
        self._layers = layers_of(model)
        self._guard = Guard(model, trainable)
        self._choices = Choices(mode, self.flat)
        holders = [id(p) for layer in self._layers for p in (layer.weight, layer.bias)]
        self._shared = {key for key in holders if key in self._index and holders.count(key) > 1}
        for layer in self._layers:
            layer.attach(self._record)
        self._sums: list[torch.Tensor | None] = [None] * len(self.parameters)
        self._norms: list[torch.Tensor] = []
        self._reset()

    def detach(self) -> nn.Module:
        """Give the model back as it was."""
        for layer in self._layers:
            layer.detach()
        self._guard.detach()
        return self.model

    def backward(self, losses: torch.Tensor) -> None:
        """Clip the gradients of a physical batch and add them up.

        Args:
            losses: (B,), one loss for each sample, of a forward pass with gradients.

        Raises:
            UserError: for losses that are not one a sample, a model that mixes records or keeps
                something of them in a buffer, a layer whose batch is not the first dimension, a
                parameter used outside its layer, or half precision in a mode of two passes.
        """
        if losses.ndim != 1:
            raise UserError(
                f"losses: found shape {tuple(losses.shape)}, expected (B,), one loss a sample; "
                "use reduction='none' and average over all dimensions but the first"
            )
        keep_float32()  # it may have been turned off again
        try:
            self._guard.before()
            self._batch = len(losses)
            if self._batch:
                # sums in half precision, of a caller's autocast, would round past the bound
                with torch.autocast(losses.device.type, enabled=False):
                    self._guard.prove(losses)
                    self._clip(losses)
            self._guard.after()
        except BaseException:
            self.sums(), self.norms()  # half a batch is of no use
            raise
        finally:
            self._reset()

    def sums(self) -> list[torch.Tensor]:
        """The clipped sums since the last call, one for each parameter; zeros where none came."""
        sums = [
            torch.zeros_like(p) if total is None else total
            for p, total in zip(self.parameters, self._sums, strict=True)
        ]
        self._sums = [None] * len(self.parameters)
        return sums

    def norms(self) -> torch.Tensor | None:
        """Gradient norms since the last call, (n, 1) or (n, L) for per-layer; None if none."""
        found = torch.cat(self._norms) if self._norms else None
        self._norms = []
        return found

    def methods(self) -> dict[str, str]:
        """How each layer's norm was got in the last backward pass; empty before the first."""
        return {layer.name: layer.method for layer in self._layers if layer.method}

    @property
    def trials(self) -> int:
        """How often a layer's ways were tried so far, which takes time and memory of its own."""
        return self._choices.trials

    def state(self) -> dict:
        """What was chosen by trying; with it a run goes on to the same last digit."""
        return self._choices.state()

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self._choices.restore(state)

    def _clip(self, losses: torch.Tensor) -> None:
        two_passes = self.mode in TWO_PASSES
        self._expect_wide(losses, "losses")
        losses.sum().backward(retain_graph=two_passes)
        for number, gradient in self._pending.items():  # of layers used more than once
            self._formed(number, gradient)
        zeros = wide(losses).new_zeros(self._batch)  # of parameters that the batch did not use
        squares = [zeros if square is None else square.to(zeros) for square in self._squares]
        norms = torch.stack(squares, dim=1).sqrt()
        self._norms.append(norms)
        if not self.flat:
            return
        scale = factors(norms, self.clipping, self.thresholds)[:, 0]
        if two_passes:
            self._second = True
            (scale.to(losses.dtype) * losses).sum().backward()
        for number, gradient in self._gradients:
            self._add(number, _combined(scale, gradient))
        for layer, x, g in self._kept:
            self._add_weighted(layer, x, g, scale)

    def _record(self, layer: Layer, x: torch.Tensor, g: torch.Tensor) -> None:
        """Called by the backward pass of each layer."""
        if not self._batch:
            raise UserError(
                "loss.backward(): found a backward pass of a private model that would not clip; "
                "call the criterion that make_private gave, and backward() of its loss, or give "
                "the losses of the samples, (B,), to BookKeeper.backward"
            )
        if len(g) != self._batch:
            raise UserError(
                f"layer {layer.name}: found {len(g)} rows in its output, expected the batch of "
                f"{self._batch} samples; keep the batch in the first dimension"
            )
        if self._guard.proved is not None:
            self._guard.look(layer, g)
            return
        self._expect_wide(g, f"gradients in layer {layer.name}")
        if self._second:
            if layer.weight is not None:
                self._add(self._index[id(layer.weight)], layer.weighted(x, g))
            if layer.bias is not None:
                self._add(self._index[id(layer.bias)], layer.per_sample_bias(g).sum(0))
            return
        if layer in self._done:
            raise UserError(
                f"layer {layer.name}: used again after its norm was taken; run one forward and "
                "one backward pass at a time, without recomputing activations"
            )
        if layer.uses == 1:
            self._done.add(layer)
        if layer.bias is not None:
            self._per_sample(layer, layer.bias, layer.per_sample_bias(g))
        if layer.weight is None:
            return
        number = self._index[id(layer.weight)]
        alone = self.masks is None and self._alone(layer, layer.weight)
        layer.method, keep = self._choices.of(layer, x, g, alone)
        if layer.method == GHOST:
            self._square(number, layer.ghost(wide(x), wide(g)))
        elif keep:
            self._square(number, _squared_norm(layer.per_sample(wide(x), wide(g))))
        else:
            self._per_sample(layer, layer.weight, layer.per_sample(x, g))
            return
        if keep:
            self._kept.append((layer, x.detach(), g))
        elif not self.flat:
            self._add_weighted(layer, x, g, self._factor(number))

    def _expect_wide(self, tensor: torch.Tensor, what: str) -> None:
        if tensor.dtype.itemsize < 4 and self.mode in TWO_PASSES:
            raise UserError(
                f"mode {self.mode}: found {tensor.dtype} {what}; two passes round differently, so "
                "that norms are not bounded; use mix_opt or float32"
            )

    def _alone(self, layer: Layer, parameter: nn.Parameter) -> bool:
        """Whether one use of one layer is all that a parameter has in this backward pass."""
        return layer.uses == 1 and id(parameter) not in self._shared

    def _per_sample(self, layer: Layer, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        """A per-sample gradient (B, *shape): finished, or waiting for others of its parameter."""
        number = self._index[id(parameter)]
        # before any norm: what is summed is what is bounded
        gradient = gradient.to(parameter.dtype)
        if self._alone(layer, parameter):
            self._formed(number, gradient)
        elif number in self._pending:
            self._pending[number] = self._pending[number] + gradient
        else:
            self._pending[number] = gradient

    def _formed(self, number: int, gradient: torch.Tensor) -> None:
        """A whole per-sample gradient of a parameter: norm, then sum or keep."""
        if self.masks is not None:
            gradient = gradient * self.masks[number]
        self._square(number, _squared_norm(gradient))
        if not self.flat:
            self._add(number, _combined(self._factor(number), gradient))
        elif self.mode not in TWO_PASSES:
            self._gradients.append((number, gradient))

    def _square(self, number: int, square: torch.Tensor) -> None:
        column = 0 if self.flat else number
        kept = self._squares[column]
        self._squares[column] = square if kept is None else kept + square

    def _factor(self, number: int) -> torch.Tensor:
        norms = self._squares[number].sqrt()[:, None]
        return factors(norms, self.clipping, self.thresholds[number : number + 1])[:, 0]

    def _add_weighted(self, layer: Layer, x, g, scale: torch.Tensor) -> None:
        """Add the sum of the weight's per-sample gradients, each times its factor."""
        # in the parameter's precision: rounding c g to half precision would break the bound
        kind = layer.weight.dtype
        scaled = g.to(kind) * scale.to(kind).view(-1, *(1 for _ in g.shape[1:]))
        x = x.to(kind) if x.is_floating_point() else x
        self._add(self._index[id(layer.weight)], layer.weighted(x, scaled))

    def _add(self, number: int, total: torch.Tensor) -> None:
        kept = self._sums[number]
        total = total.to(self.parameters[number].dtype)
        self._sums[number] = total if kept is None else kept.add_(total)

    def _reset(self) -> None:
        """Forget the batch."""
        self._batch, self._second = 0, False
        self._squares = [None] * len(self.thresholds)
        self._gradients: list[tuple[int, torch.Tensor]] = []
        self._kept: list[tuple[Layer, torch.Tensor, torch.Tensor]] = []
        self._pending: dict[int, torch.Tensor] = {}
        self._done: set[Layer] = set()
        for layer in self._layers:
            layer.uses = 0


def _squared_norm(gradient: torch.Tensor) -> torch.Tensor:
    """Squared norms (B,) of per-sample gradients (B, ...)."""
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1).square()


def _combined(scale: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The sum over samples of scale (B,) times gradient (B, ...)."""
    return torch.tensordot(scale.to(gradient.dtype), gradient, dims=1)
