"""Which module of torch is of which kind."""

from __future__ import annotations

from torch import nn

from dpmedbench.bookkeeping.convolution import Convolution
from dpmedbench.bookkeeping.layers import Embedding, Layer, Linear
from dpmedbench.bookkeeping.normalisation import Normalisation
from dpmedbench.errors import UserError

CONVOLUTIONS = tuple(
    getattr(nn, f"Conv{kind}{n}d") for kind in ("", "Transpose") for n in (1, 2, 3)
)
NORMALISATIONS = (
    nn.GroupNorm,
    nn.LayerNorm,
    *(getattr(nn, f"InstanceNorm{n}d") for n in (1, 2, 3)),
    *(getattr(nn, f"BatchNorm{n}d") for n in (1, 2, 3)),
)
KINDS = {
    nn.Linear: Linear,
    nn.Embedding: Embedding,
    **dict.fromkeys(CONVOLUTIONS, Convolution),
    **dict.fromkeys(NORMALISATIONS, Normalisation),
}


def kind_of(module: nn.Module) -> type[Layer] | None:
    """The kind of a module, None where there is none.

    A subclass counts as its base where it leaves the forward pass alone: anything else computes
    what only its author knows.
    """
    for base, kind in KINDS.items():
        if isinstance(module, base) and all(
            getattr(type(module), method, None) is getattr(base, method, None)
            for method in ("forward", "_conv_forward")
        ):
            return kind
    return None


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers that hold trainable parameters.

    Raises:
        UserError: naming the first one that is not supported, or not as it is set.
    """
    layers = []
    for name, module in model.named_modules():
        own = sorted(k for k, p in module.named_parameters(recurse=False) if p.requires_grad)
        if not own:
            continue
        kind = kind_of(module)
        what = f"layer {name or 'model'} ({type(module).__name__})"
        if kind is None or not set(own) <= {"weight", "bias"}:
            raise UserError(
                f"{what}: its trainable {' and '.join(own)} cannot be made private; replace the "
                "layer by a supported one (docs/bookkeeping.md) or freeze it with "
                "requires_grad_(False)"
            )
        layer = kind(name, module)
        if problem := layer.check():
            raise UserError(f"{what}: {problem}")
        layers.append(layer)
    return layers
