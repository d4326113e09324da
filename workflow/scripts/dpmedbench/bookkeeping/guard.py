"""What clipping would not bound, looked for in each batch of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dpmedbench.bookkeeping.layers import Layer
from dpmedbench.errors import UserError
from dpmedbench.privacy import mixing


class Guard:
    """Refuses, naming it, what of a model's training is not the clipped gradient of one record.

    Args:
        trainable: the parameters of `model` by name.

    Raises:
        UserError: for one of them in half precision.
    """

    def __init__(self, model: nn.Module, trainable: Mapping[str, nn.Parameter]):
        self.proved: int | None = None  # the record whose backward pass is for `look` alone
        self._proven = False
        self._trainable = dict(trainable)
        self._refuse_half()
        self._mixing = mixing.candidates(model)
        self._changed: str | None = None
        self._hooks = [
            hook
            for name, module in model.named_modules()
            if (buffers := _buffers(module, name, whole=module is model))
            for hook in self._watched(module, buffers)
        ]

    def detach(self) -> None:
        """Leave the model alone."""
        for hook in self._hooks:
            hook.remove()

    def before(self) -> None:
        """To be called ahead of a backward pass.

        Raises:
            UserError: for gradients that are there already, parameters that became half precision,
                a layer that mixes records, or a buffer that the forward pass changed.
        """
        self._refuse_half()
        self._refuse_gradients(
            "holds a gradient from elsewhere; call optimizer.zero_grad(set_to_none=True) first"
        )
        for name, layer in self._mixing.items():
            if problem := mixing.problem(layer):
                raise UserError(f"model: layer {name} {problem}")
        changed, self._changed = self._changed, None
        if changed:
            raise UserError(
                f"model: buffer {changed} was changed by a forward pass, which keeps something of "
                "the records without noise; put its layer into evaluation mode or leave it out; if "
                "it only fills the buffer, run the model once under torch.no_grad() before"
            )

    def after(self) -> None:
        """To be called behind a backward pass. UserError for gradients that were not clipped."""
        self._refuse_gradients(
            "got a gradient outside the forward pass of its layer, which would not be clipped; "
            "use the layer itself, and no penalty on weights in the loss"
        )

    def prove(self, losses: torch.Tensor) -> None:
        """On the first batch of several records: what layers give for one is in its loss alone.

        Looked at are the losses of the first and of the last: what takes the batch for a sequence,
        as torch's recurrent layers do unless told otherwise, may look back only. The backward pass
        of each layer must call `look`. What mixes records before the first trained layer is not
        seen, nor is anything through activations that are recomputed by reentrant checkpoints.
        """
        if self._proven or len(losses) < 2 or not losses.isfinite().all():
            return
        trained = [p for p in self._trainable.values() if p.requires_grad]
        try:
            for self.proved in (0, len(losses) - 1):
                torch.autograd.grad(
                    losses[self.proved], trained, retain_graph=True, allow_unused=True
                )
        except RuntimeError as error:
            if "checkpoint" not in str(error).lower():
                raise
        finally:
            self.proved = None
        self._proven = True

    def look(self, layer: Layer, g: torch.Tensor) -> None:
        """Refuse a gradient (B, ...) of the proved record's loss that is not of it alone."""
        others = g[: self.proved], g[self.proved + 1 :]
        if any(part.count_nonzero() and part.nan_to_num().any() for part in others):
            raise UserError(
                f"layer {layer.name}: what it gives for one record is in the loss of another, "
                "so that no gradient is of one record alone; take out what mixes the batch"
            )

    def _refuse_half(self) -> None:
        for name, parameter in self._trainable.items():
            if parameter.dtype.itemsize < 4:
                raise UserError(
                    f"parameter {name}: found {parameter.dtype}, in which sums round past the "
                    "bound of clipping; keep it in float32 and use torch.autocast"
                )

    def _refuse_gradients(self, problem: str) -> None:
        for name, parameter in self._trainable.items():
            if parameter.grad is not None:
                raise UserError(f"parameter {name}: {problem}")

    def _watched(self, owner: nn.Module, buffers: list[tuple[str, dict, str]]) -> list:
        """Hooks that note which of the buffers a forward pass of a module changes.

        The pass must have gradients; what is written through `.data` is not seen.
        """
        before: list[tuple] = []

        def start(module, *_) -> None:
            if module is owner:  # and no deep copy of it
                before[:] = _versions(buffers) if torch.is_grad_enabled() else []

        def end(module, *_) -> None:
            if module is not owner or not before:
                return
            pairs = zip(buffers, before, _versions(buffers), strict=True)
            for (name, *_), (old, was), (new, now) in pairs:
                if old is not new or was != now:
                    self._changed = name
            before.clear()

        return [owner.register_forward_pre_hook(start), owner.register_forward_hook(end)]


def _buffers(module: nn.Module, prefix: str, whole: bool) -> list[tuple[str, dict, str]]:
    """The buffers of a module, of its parts too if `whole`: name, and where it is found."""
    parts = module.named_modules(prefix=prefix) if whole else [(prefix, module)]
    return [
        (f"{name}.{key}".removeprefix("."), part._buffers, key)
        for name, part in parts
        for key in part._buffers
    ]


def _versions(buffers: list[tuple[str, dict, str]]) -> list[tuple]:
    """Each buffer with its count of changes in place."""
    found = [held.get(key) for _, held, key in buffers]
    return [
        (buffer, None if buffer is None or buffer.is_inference() else buffer._version)
        for buffer in found
    ]
