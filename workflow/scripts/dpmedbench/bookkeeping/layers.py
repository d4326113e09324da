"""Layers whose gradients per sample autograd never forms: what all kinds share, and matrices.

Each kind computes, from the input x (B, ...) of a layer and the gradient g (B, ...) of its
output, what Book-Keeping needs (Bu et al. 2023, arXiv:2210.00038, section 2):

    sizes(x, g)         (T, d, p): positions, inputs and outputs of the matrix at each position
    ghost(x, g)         squared norm (B,) of the per-sample weight gradients, not formed
    per_sample(x, g)    the per-sample weight gradients (B, *weight.shape)
    weighted(x, g)      their sum, as ordinary training has it
    per_sample_bias(g)  per-sample bias gradients (B, *bias.shape)
"""

from __future__ import annotations

import types

import torch
from torch import nn
from torch.nn import functional

TILE = 2**25  # most elements of a tile of a Gram matrix
UNFOLDED = "unfolded"  # a form that copies the input once for each position of the kernel


class Layer:
    """One module of the model whose forward pass is recorded.

    `weight` and `bias` are its trainable parameters, None where it has none or they are frozen.
    `uses` counts the forward passes since the last backward; `method` says how the norm of the
    weight's gradient was got, and `form`, one of FORMS, how `per_sample` computes it.
    """

    FORMS = ("matrix",)

    def __init__(self, name: str, module: nn.Module):
        self.name, self.module = name, module
        self.weight, self.bias = (_trainable(module, key) for key in ("weight", "bias"))
        self.uses = 0
        self.method, self.form = "", self.FORMS[0]

    def check(self) -> str | None:
        """Why this layer cannot be made private, None where it can."""
        return None

    def attach(self, record) -> None:
        """Record the forward passes of the module, but for those without gradients.

        `record` gets the layer, x and g of each in the backward pass.
        """
        plain = type(self.module).forward

        def forward(module, x, *arguments, **keywords):
            if module is not self.module or not torch.is_grad_enabled():
                return plain(module, x, *arguments, **keywords)
            return self.run(record, x, *arguments, **keywords)

        # a method, so that a deep copy of the model computes with its own weights
        self.module.forward = types.MethodType(forward, self.module)

    def detach(self) -> None:
        """Give the module back as it was."""
        self.module.__dict__.pop("forward", None)

    def run(self, record, x: torch.Tensor) -> torch.Tensor:
        """The forward pass, recorded."""
        self.uses += 1
        return Recorded.apply(self, record, self._cast(x), self.module.weight, self.module.bias)

    def forward(self, x, weight, bias) -> tuple[torch.Tensor, tuple]:
        """Output, and the tensors beside x and weight that the backward pass needs."""
        raise NotImplementedError

    def input_gradient(self, x, weight, g, kept) -> torch.Tensor:
        """The gradient with respect to x."""
        raise NotImplementedError

    def prepared(self, x, g, kept) -> tuple[torch.Tensor, torch.Tensor]:
        """What `per_sample` and its like take for x and g."""
        return x, g

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs in the type that autocast asks for."""
        kind = x.device.type
        return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Recorded(torch.autograd.Function):
    """A layer whose backward pass hands over x and g, and gives no gradient of its parameters."""

    @staticmethod
    def forward(ctx, layer, record, x, weight, bias):
        output, kept = layer.forward(x, weight, bias)
        ctx.layer, ctx.record = layer, record
        ctx.save_for_backward(x, weight, *kept)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, weight, *kept = ctx.saved_tensors
        g = g.contiguous()
        wanted = ctx.needs_input_grad[2]
        gradient = ctx.layer.input_gradient(x, weight, g, kept) if wanted else None
        ctx.record(ctx.layer, *ctx.layer.prepared(x, g, kept))
        return None, None, gradient, None, None


class Linear(Layer):
    """y = x W^T + b on the last dimension; x (B, ..., d)."""

    def forward(self, x, weight, bias):
        return functional.linear(x, like(weight, x), like(bias, x)), ()

    def input_gradient(self, x, weight, g, kept):
        return g @ weight.to(g.dtype)

    def sizes(self, x, g):
        return x[0].numel() // x.shape[-1], x.shape[-1], g.shape[-1]

    def ghost(self, x, g):
        columns = (
            tensor.flatten(1, -2) if tensor.ndim > 2 else tensor[:, None] for tensor in (x, g)
        )
        return gram_product(*(tensor.transpose(1, 2).unsqueeze(1) for tensor in columns))

    def per_sample(self, x, g):
        return torch.einsum("b...p,b...d->bpd", g, x)

    def weighted(self, x, g):
        return g.flatten(0, -2).T @ x.flatten(0, -2)

    def per_sample_bias(self, g):
        return g.flatten(1, -2).sum(1) if g.ndim > 2 else g


class Embedding(Layer):
    """Rows of a table; x (B, ...) of indices."""

    def check(self):
        module = self.module
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(module, option):
                return f"{option} is set, which mixes the records of a batch; leave it out"
        return None

    def run(self, record, x):
        self.uses += 1
        return Recorded.apply(self, record, x, self.module.weight, None)

    def forward(self, x, weight, bias):
        return functional.embedding(x, weight, self.module.padding_idx), ()

    def prepared(self, x, g, kept):
        if self.module.padding_idx is not None:
            g = g.masked_fill((x == self.module.padding_idx).unsqueeze(-1), 0)
        return (x, g) if x.ndim > 1 else (x[:, None], g[:, None])  # one index a record

    def sizes(self, x, g):
        return x[0].numel(), len(self.module.weight), g.shape[-1]

    def ghost(self, x, g):
        rows, g = x.flatten(1), g.flatten(1, -2)
        same = rows[:, :, None] == rows[:, None, :]
        return ((g @ g.transpose(1, 2)) * same).sum((1, 2))

    def per_sample(self, x, g):
        rows = x.flatten(1).unsqueeze(-1).expand(*x.flatten(1).shape, g.shape[-1])
        table = g.new_zeros(len(x), *self.module.weight.shape)
        return table.scatter_add_(1, rows, g.flatten(1, -2))

    def weighted(self, x, g):
        table = g.new_zeros(self.module.weight.shape)
        return table.index_add_(0, x.flatten(), g.flatten(0, -2))


def _trainable(module: nn.Module, key: str) -> nn.Parameter | None:
    parameter = getattr(module, key, None)
    return parameter if parameter is not None and parameter.requires_grad else None


def like(parameter: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """The parameter in the type of x."""
    return None if parameter is None else parameter.to(x.dtype)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: norms in half precision would not bound the sensitivity."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def gram_product(a: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """Squared norms (B,) of sum_t e_t a_t^T, from a (B, G, d, T) and e (B, G, p, T).

    The ghost norm (Li et al. 2022, arXiv:2110.05679, section 4): the sum over all pairs of
    positions of <a_s, a_t> <e_s, e_t>, in tiles so that no T x T matrix is held whole.
    """
    rows = max(1, TILE // max(1, e[:, :, 0].numel()))
    total = 0
    for s in range(0, a.shape[-1], rows):
        tile = slice(s, s + rows)
        products = a[..., tile].transpose(2, 3) @ a
        products *= e[..., tile].transpose(2, 3) @ e
        total = total + products.sum((1, 2, 3))
    return total.clamp(min=0)
