"""Small networks for the fastDP engine, and the engine held against the loop over the records."""

import pytest
import torch
from per_sample_loop import clipped_sums, equal_limits
from torch import nn

from dpmedbench import mechanisms
from dpmedbench.mechanisms import fastdp

MODES = list(fastdp.CAPABILITIES.modes)
needs_fastdp = pytest.mark.skipif(bool(mechanisms.missing("fastdp")), reason="fastDP is missing")


def squares(outputs, targets):
    return (outputs.flatten(1) - targets[:, None]).square().sum(1)


def records(size, shape=(1, 8, 8), seed=1):
    random = torch.Generator().manual_seed(seed)
    inputs = torch.rand(size, *shape, generator=random, dtype=torch.float64)
    return inputs, torch.rand(size, generator=random, dtype=torch.float64)


def network(*layers, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(layer() for layer in layers)).double()


def small():
    return network(
        lambda: nn.Conv2d(1, 4, 3),
        lambda: nn.GroupNorm(2, 4),
        nn.ReLU,
        lambda: nn.Conv2d(4, 4, 3),
        nn.Flatten,
        lambda: nn.Linear(64, 3),
    )


def feed(engine, losses, inputs, targets, split=100):
    for x, y in zip(inputs.split(split), targets.split(split), strict=True):
        engine.backward(losses(engine.model(x), y))


def same(found, expected):
    """Of each tensor to 1e-9; where its gradients cancel out, to 1e-8 of all tensors.

    Automatic clipping makes up to a hundred times as much of what rounding leaves of them.
    """
    whole = torch.cat([total.flatten() for total in expected]).norm()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm() + 1e-8 * whole


def agrees(model, inputs, targets, losses=squares, mode="mix_opt", r=0.5, split=2, **how):
    """Check the sums, also of batches that are not compared with autograd; the engine."""
    clipping, style = how.get("clipping", "abadi"), how.get("style", "flat")
    thresholds = equal_limits(model, style, r)
    expected = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    engine = fastdp.build(model, mode, clipping, thresholds)
    for _ in range(2):
        feed(engine, losses, inputs, targets, split)
        same(engine.sums(), expected)
    return engine


def conv(inputs=1, **options):
    return nn.Conv2d(inputs, 2, 3, **{"padding": 1} | options)


def conv_of(inputs):
    return lambda: conv(inputs)
