"""What each mode of Opacus can do with a layer, and what it does."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dpmedbench.errors import UserError
from dpmedbench.privacy import mixing

EXPANDED = frozenset(
    {
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.GroupNorm,
        nn.LayerNorm,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
        nn.Embedding,
    }
)


def check(model: nn.Module, mode: str) -> None:
    """Raise UserError for the first layer of `model` that `mode` cannot do, or does wrongly."""
    for name, layer in model.named_modules():
        if why := _refusal(layer, mode):
            raise UserError(
                f"model: found layer {name or '(the model itself)'} ({type(layer).__name__}), "
                f"which mode {mode} of engine opacus cannot make private: {why}"
            )


def methods(model: nn.Module, wrapped: nn.Module, mode: str) -> dict[str, str]:
    """Layer -> how the norm of its gradient is got; `wrapped` is Opacus' module of `model`."""
    from opacus.utils.module_utils import trainable_modules

    if mode == "ew":
        return {_name(name, layer): "expanded weights" for name, layer in trainable_modules(model)}
    names = {layer: name for name, layer in model.named_modules()}
    found = {}
    for layer in wrapped.iterate_submodules(model):
        if mode == "ghost":
            known = type(layer) in wrapped.NORM_SAMPLERS
            method = "ghost norm" if known else "fast gradient clipping"
        else:
            known = type(layer) in wrapped.GRAD_SAMPLERS and not wrapped.force_functorch
            method = "per-sample gradient" if known else "functorch"
        found[_name(names[layer], layer)] = method
    return found


def straighten(model: nn.Module, mode: str) -> None:
    """Give convolutions the memory layout that `mode` takes for granted.

    Opacus unfolds the input of a Conv2d by strides, as if it were contiguous: gradients of one in
    another layout (channels last, permuted) would be wrong without a word. Expanded weights view
    the gradient of the output of a convolution, which fails where that is not contiguous.
    """
    for layer in model.modules():
        if mode == "ew" and isinstance(layer, _ConvNd):
            layer.register_forward_hook(_contiguous_gradient)
        elif mode != "ew" and isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(_contiguous_input)


def _contiguous_input(layer, inputs):
    # not .contiguous(), which leaves the strides of dimensions of one element as they are
    return tuple(x.flatten().view(x.shape) for x in inputs)


def _contiguous_gradient(layer, inputs, output):
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.contiguous())


def _name(name: str, layer: nn.Module) -> str:
    return name or type(layer).__name__


def _refusal(layer: nn.Module, mode: str) -> str | None:
    """Why `mode` cannot do `layer`, and what to do."""
    from opacus.validators import ModuleValidator

    trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
    if problem := mixing.problem(layer):
        return f"it {problem}"
    if isinstance(layer, _BatchNorm) and trainable:
        return "batch normalisation mixes the records of a batch; use GroupNorm"
    if getattr(layer, "inplace", False) and mode != "ew":
        return "it overwrites the output of a layer that Opacus watches; set inplace=False"
    if not trainable:
        return None
    if problems := ModuleValidator.validate(layer):
        return f"{problems[0]}"
    if any(True for _ in layer.buffers()):
        return "it has buffers beside its trainable parameters; replace or freeze it"
    if isinstance(layer, nn.EmbeddingBag):
        return "its batch is not in the first dimension; use Embedding"
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        return "max_norm, scale_grad_by_freq and sparse mix records; leave them unset"
    if mode == "functorch":
        return None
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        return "it counts the gradient of padding_idx; use mode functorch"
    return _refusal_of_expanded(layer) if mode == "ew" else _refusal_of_hooks(layer)


def _refusal_of_expanded(layer: nn.Module) -> str | None:
    if type(layer) not in EXPANDED:
        return "torch has no expanded weights for it; use mode hooks"
    if isinstance(layer, nn.Conv3d) and layer.dilation != (1, 1, 1):
        return "torch's expanded weights cannot dilate in three dimensions; use mode hooks"
    return None


def _refusal_of_hooks(layer: nn.Module) -> str | None:
    if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and layer.padding_mode != "zeros":
        return f"padding_mode {layer.padding_mode} is taken for zeros; use mode functorch"
    if type(layer) is nn.LayerNorm and layer.bias is None:
        return "it has no bias; use mode functorch"
    return None
