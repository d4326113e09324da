"""Normalisation layers with affine parameters."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dpmedbench.bookkeeping.layers import Layer, Recorded


class Normalisation(Layer):
    """GroupNorm, InstanceNorm, LayerNorm and BatchNorm in evaluation mode.

    The gradient of the affine parameters has as many values as there are channels, so that it is
    always formed: the normalised input is recomputed from mean and scale.
    """

    def check(self):
        tracks = getattr(self.module, "running_mean", None) is not None
        if isinstance(self.module, _BatchNorm):
            return None if tracks else "it has no running statistics, so that it mixes the batch"
        return "track_running_stats would release statistics without noise" if tracks else None

    def run(self, record, x):
        module = self.module
        if isinstance(module, _InstanceNorm) and x.ndim == module._get_no_batch_dim():
            raise ValueError(
                f"layer {self.name}: found an input of shape {tuple(x.shape)}, expected a batch "
                f"of {x.ndim + 1} dimensions"
            )
        self.uses += 1
        # normalisation in the parameters' precision, as autocast has it; of anything but contiguous
        # values its backward kernel silently gives wrong gradients on the CPU
        x = x.to(module.weight.dtype).contiguous()
        return Recorded.apply(self, record, x, module.weight, module.bias)

    def forward(self, x, weight, bias):
        module = self.module
        if isinstance(module, nn.LayerNorm):
            output, *kept = torch.native_layer_norm(
                x, module.normalized_shape, weight, bias, module.eps
            )
            return output, kept
        if self._fixed():
            scale = (module.running_var + module.eps).rsqrt()
            shape = (-1, *(1 for _ in x.shape[2:]))
            # saved as (C, 1, ...): the same for all samples
            kept = module.running_mean.view(shape), scale.view(shape)
            output = (x - kept[0]) * (kept[1] * weight.view(shape))
            return output if bias is None else output + bias.view(shape), kept
        output, *kept = torch.native_group_norm(x, weight, bias, *self._groups(x), module.eps)
        return output, kept

    def input_gradient(self, x, weight, g, kept):
        module = self.module
        mean, scale = kept
        if isinstance(module, nn.LayerNorm):
            return torch.ops.aten.native_layer_norm_backward(
                g,
                x,
                module.normalized_shape,
                mean,
                scale,
                weight,
                module.bias,
                [True, False, False],
            )[0]
        if self._fixed():
            return g * (scale * weight.view(scale.shape))
        return torch.ops.aten.native_group_norm_backward(
            g, x, mean, scale, weight, *self._groups(x), [True, False, False]
        )[0]

    def prepared(self, x, g, kept):
        """In place of x the weight's per-sample gradient (B, *weight.shape): all that is needed."""
        return (x if self.weight is None else self._weight_gradient(x, g, kept)), g

    def _weight_gradient(self, x, g, kept):
        mean, scale = kept
        if isinstance(self.module, nn.LayerNorm) or self._fixed():
            return self._summed(g * (x - mean) * scale)
        batch, channels, _, groups = self._groups(x)
        per_group = (batch, groups, channels // groups)
        products, plain = self._summed(g * x), self._summed(g)
        mean, scale = mean.view(batch, groups, 1), scale.view(batch, groups, 1)
        return ((products.view(per_group) - mean * plain.view(per_group)) * scale).flatten(1)

    def sizes(self, x, g):
        return None  # formed whatever the mode

    def per_sample(self, x, g):
        return x

    def weighted(self, x, g):
        return x.sum(0)

    def per_sample_bias(self, g):
        return self._summed(g)

    def _fixed(self):
        return isinstance(self.module, _BatchNorm)

    def _groups(self, x):
        """What the kernels of group normalisation ask for: B, C, positions, groups."""
        channels = x.shape[1]
        return (
            len(x),
            channels,
            math.prod(x.shape[2:]),
            getattr(self.module, "num_groups", channels),
        )

    def _summed(self, values):
        """(B, ...) summed to (B, *weight.shape)."""
        if isinstance(self.module, nn.LayerNorm):
            shape = self.module.normalized_shape
            return values.reshape(len(values), -1, *shape).sum(1)
        return values.reshape(*values.shape[:2], math.prod(values.shape[2:])).sum(2)
