"""Which layers fastDP trains; needs no fastDP.

It freezes every other layer, and clips some options of these wrongly, without an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.errors import UserError

if TYPE_CHECKING:
    import torch

_CONVOLUTIONS = ("Conv1d", "Conv2d")
_INSTANCE_NORMS = ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
_LAYERS = ("Linear", *_CONVOLUTIONS, "GroupNorm", "LayerNorm", *_INSTANCE_NORMS, "Embedding")


def check_layers(model: torch.nn.Module) -> None:
    """Refuse a model with a trainable parameter that fastDP would freeze or clip wrongly.

    Raises:
        UserError: naming the first such layer.
    """
    seen = set()
    for name, layer in model.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            kind = type(layer).__name__
            reason = "its parameters are shared" if parameter in seen else _problem(layer, key)
            if reason:
                raise UserError(
                    f"model: fastDP cannot train layer {name or 'model'} ({kind}), {reason}; "
                    "replace or freeze it, or use engine bookkeeping"
                )
            seen.add(parameter)
    if not seen:
        raise UserError("model: found no trainable parameter, expected one at least")


def _problem(layer: torch.nn.Module, key: str) -> str | None:
    """Why fastDP cannot train parameter `key` of `layer`, None if it can."""
    import torch

    kind, dtype = type(layer).__name__, getattr(layer, key).dtype
    if kind not in _LAYERS or type(layer) is not getattr(torch.nn, kind):
        return f"it knows exactly the types {', '.join(_LAYERS)}"
    if key not in ("weight", "bias"):
        return f"which has a parameter {key}"
    if dtype not in (torch.float32, torch.float64):
        return f"it would take norms in {dtype}"
    if kind in _CONVOLUTIONS:
        found = {"groups": layer.groups, "padding_mode": layer.padding_mode}
        for option, allowed in {"groups": 1, "padding_mode": "zeros"}.items():
            if found[option] != allowed:
                return f"it ignores {option}={found[option]!r} in the gradient"
        if isinstance(layer.padding, str):
            return f"padding must be numbers and is {layer.padding!r}"
    if kind in _INSTANCE_NORMS and layer.track_running_stats:
        return "whose running statistics would not be private"
    if kind == "Embedding" and (layer.scale_grad_by_freq or layer.max_norm is not None):
        return "it ignores scale_grad_by_freq and max_norm"
    return None
