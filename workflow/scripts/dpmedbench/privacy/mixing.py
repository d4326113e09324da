"""Layers that make one record's gradient, or the weights file, depend on other records."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase


def problem(layer: nn.Module) -> str | None:
    """Why `layer`, in the mode in which it is now, cannot be part of private training.

    None where it can. Batch normalisation takes its statistics from the batch in training mode,
    and where it keeps none also in evaluation mode; instance normalisation takes them from one
    record, but those that it keeps would be released without noise.
    """
    if not isinstance(layer, _NormBase):
        return None
    keeps = layer.running_mean is not None
    if isinstance(layer, _BatchNorm):
        if layer.training:
            return (
                "is BatchNorm in training mode, which mixes the records of a batch; use GroupNorm, "
                "or put it in evaluation mode"
            )
        if keeps:
            return None
        return "has no running statistics, so that it mixes the batch; use GroupNorm"
    if keeps and layer.training:
        return (
            "keeps running statistics of the records, which would be released without noise; set "
            "track_running_stats=False"
        )
    return None


def candidates(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `model` that `problem` may object to, by name: to look at them at each step."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _NormBase)}
