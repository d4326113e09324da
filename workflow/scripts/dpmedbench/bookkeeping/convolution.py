"""Convolutions and transposed convolutions in one to three dimensions."""

from __future__ import annotations

import torch
from torch.nn import functional

from dpmedbench.bookkeeping.layers import UNFOLDED, Layer, gram_product, like


class Convolution(Layer):
    """Conv1d to Conv3d and their transposes; x (B, C, ...).

    The per-sample weight gradients of a batch are one convolution of B times the groups, or B
    convolutions, so that nothing is unfolded but for ghost norms; or a product of matrices with
    the input unfolded. Which is faster depends on the device and on the shapes.
    """

    FORMS = ("grouped", "looped", UNFOLDED)

    def __init__(self, name, module):
        super().__init__(name, module)
        self.transposed = module.transposed
        self.dimensions = len(module.kernel_size)
        self.padding = module.padding
        self.output_padding = module.output_padding  # of the pass that is computed
        self.pad = None  # before the convolution, where it cannot pad by itself
        if not self.transposed and (module.padding_mode != "zeros" or module.padding == "same"):
            self.pad = list(module._reversed_padding_repeated_twice)
        if self.pad or module.padding == "valid":
            self.padding = (0,) * self.dimensions

    def run(self, record, x, output_size=None):
        module = self.module
        if x.ndim != self.dimensions + 2:
            raise ValueError(
                f"layer {self.name}: found an input of shape {tuple(x.shape)}, expected a batch "
                f"of {self.dimensions + 2} dimensions"
            )
        if self.pad:
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            x = functional.pad(x, self.pad, mode=mode)
        if self.transposed:
            self.output_padding = module._output_padding(
                x,
                output_size,
                module.stride,
                module.padding,
                module.kernel_size,
                self.dimensions,
                module.dilation,
            )
        return super().run(record, x)

    def forward(self, x, weight, bias):
        return torch.convolution(x, like(weight, x), like(bias, x), *self._geometry()), ()

    def input_gradient(self, x, weight, g, kept):
        return self._backward(g, x, weight.to(g.dtype), self.module.groups, 0)

    def sizes(self, x, g):
        a, e = (g, x) if self.transposed else (x, g)
        groups = self.module.groups
        kernel = self.module.weight[0, 0].numel()
        return e[0, 0].numel(), a.shape[1] // groups * kernel, e.shape[1] // groups

    def ghost(self, x, g):
        # the transposed convolution is the convolution with the roles of x and g exchanged
        a, e = (g, x) if self.transposed else (x, g)
        return gram_product(self._unfolded(a, e.shape[2:]), self._grouped(e.flatten(2)))

    def per_sample(self, x, g):
        match self.form:
            case "grouped":
                return self._formed(x, g)
            case "looped":
                return torch.cat(
                    [self._formed(*one) for one in zip(x.split(1), g.split(1), strict=True)]
                )
            case _:
                a, e = (g, x) if self.transposed else (x, g)
                a, e = self._unfolded(a, e.shape[2:]), self._grouped(e.flatten(2))
                return (e @ a.transpose(2, 3)).reshape(len(x), *self.module.weight.shape)

    def _formed(self, x, g):
        batch, shape = len(x), self.module.weight.shape
        rows, columns = (tensor.reshape(1, -1, *tensor.shape[2:]) for tensor in (x, g))
        weight = x.new_empty(1).expand(batch * shape[0], *shape[1:])
        groups = batch * self.module.groups
        return self._backward(columns, rows, weight, groups, 1).view(batch, *shape)

    def weighted(self, x, g):
        weight = x.new_empty(1).expand(self.module.weight.shape)
        return self._backward(g, x, weight, self.module.groups, 1)

    def per_sample_bias(self, g):
        return g.flatten(2).sum(2)

    def _geometry(self, groups=None):
        module = self.module
        return (
            module.stride,
            self.padding,
            module.dilation,
            self.transposed,
            self.output_padding,
            groups or module.groups,
        )

    def _backward(self, g, x, weight, groups, which):
        """One output of the backward of a convolution: 0 the input's, 1 the weight's gradient."""
        wanted = [number == which for number in range(3)]
        if self.transposed:  # uses of one layer may differ in it
            module, sides = self.module, zip(x.shape[2:], g.shape[2:], strict=True)
            self.output_padding = [
                after
                - (before - 1) * module.stride[axis]
                + 2 * module.padding[axis]
                - module.dilation[axis] * (module.kernel_size[axis] - 1)
                - 1
                for axis, (before, after) in enumerate(sides)
            ]
        return torch.ops.aten.convolution_backward(
            g, x, weight, None, *self._geometry(groups), wanted
        )[which]

    def _grouped(self, columns):
        """(B, C, T) to (B, groups, C / groups, T)."""
        return columns.unflatten(1, (self.module.groups, -1))

    def _unfolded(self, a, positions):
        """Patches (B, groups, C / groups * kernel, T) of a (B, C, ...)."""
        module, n = self.module, self.dimensions
        a = functional.pad(a, [side for p in reversed(self.padding) for side in (p, p)])
        for axis in range(n):
            k, s, d = module.kernel_size[axis], module.stride[axis], module.dilation[axis]
            a = a.unfold(2 + axis, (k - 1) * d + 1, s)
        a = a[(..., *(slice(None, None, d) for d in module.dilation))]
        a = a[(slice(None), slice(None), *(slice(length) for length in positions))]
        order = [0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n)]
        patches = a.permute(order).flatten(2 + n)  # (B, C, *kernel, T)
        return self._grouped(patches).flatten(2, -2)
