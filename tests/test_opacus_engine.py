"""The engines on Opacus against a loop over the records, in float64."""

from __future__ import annotations

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_loop import (
    assert_equal,
    clipped_sums,
    distance,
    gradients,
    limits,
    normal,
    squares,
    sums_of,
)
from torch import nn

from dpmedbench import models
from dpmedbench.errors import UserError
from dpmedbench.losses import segmentation_loss
from dpmedbench.mechanisms import opacus

CLASSES = 3
MODES = opacus.CAPABILITIES.modes
COMBINATIONS = [
    (name, clipping, style)
    for name, mode in MODES.items()
    for clipping, style in sorted(mode.combinations)
]
SPARSIFIED = [combination for combination in COMBINATIONS if MODES[combination[0]].sparsification]


def network():
    torch.manual_seed(0)
    return models.build("unet", 1, CLASSES, features=[4, 8], num_groups=2).double()


def batch(size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, CLASSES, (size, 8, 8), generator=generator, dtype=torch.uint8)


def build(model, mode, clipping="abadi", thresholds=(1.3,)):
    return opacus.build(model, mode, clipping, thresholds)


@pytest.mark.parametrize("split", [None, 4, 1])
@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
def test_equal_to_a_loop_over_records(mode, clipping, style, split):
    """Whatever the physical batches; some of the gradients are clipped, some are not."""
    model, (images, targets) = network(), batch(5)
    thresholds = limits(model, style)
    wanted = clipped_sums(model, segmentation_loss, images, targets, clipping, thresholds)
    engine = build(model, mode, clipping, thresholds)
    assert_equal(sums_of(engine, segmentation_loss, images, targets, split), wanted)
    norms = engine.norms()
    assert norms.shape == (5, len(thresholds))
    assert 0 < (norms > norms.new_tensor(thresholds)).sum() < norms.numel()


@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
@pytest.mark.parametrize("case", zoo.CASES)
def test_equal_to_a_loop_on_every_network(case, mode, clipping, style):
    model, inputs, targets, losses = zoo.case(case)
    thresholds = limits(model, style)
    wanted = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    engine = build(model, mode, clipping, thresholds)
    assert_equal(sums_of(engine, losses, inputs, targets), wanted)


@st.composite
def convolutional(draw, mode):
    """A small net of convolutions in one to three dimensions, and the shape of a record."""
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[rank - 1]

    def each(most, least=1):
        return tuple(draw(st.integers(least, most)) for _ in range(rank))

    dilation = (1,) * rank if rank == 3 and mode == "ew" else each(2)
    stride, padding = each(2), each(2, least=0)
    if draw(st.booleans()):
        stride, padding = (1,) * rank, "same"
    kernel = each(3)
    return nn.Sequential(
        convolution(2, 4, kernel, stride, padding, dilation, groups, draw(st.booleans())),
        draw(st.sampled_from([nn.GroupNorm(2, 4), instance(4, affine=True), nn.Identity()])),
        nn.Tanh(),
        convolution(4, 2, 1),
        nn.Flatten(2),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(4, 2, bias=draw(st.booleans())),
    ), (2, *each(7, least=6 if rank < 3 else 5))


@st.composite
def sequential(draw, mode):
    """A small net on tokens, and the length of a record."""
    width = draw(st.integers(2, 4))
    return nn.Sequential(
        nn.Embedding(5, width),
        nn.Linear(width, 3, bias=draw(st.booleans())),
        nn.LayerNorm(3) if draw(st.booleans()) else nn.Tanh(),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(2),
    ), (draw(st.integers(1, 4)),)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), combination=st.sampled_from(COMBINATIONS), seed=st.integers(0, 10**6))
def test_small_nets_of_all_layers(data, combination, seed):
    mode, clipping, style = combination
    kind = data.draw(st.sampled_from([convolutional, convolutional, sequential]))
    torch.manual_seed(seed)
    model, shape = data.draw(kind(mode))
    model = model.double()
    inputs = (
        torch.randint(0, 5, (3, *shape)) if kind is sequential else normal(3, *shape, seed=seed)
    )
    targets = normal(3, seed=seed + 1)
    model(inputs)  # sizes the lazy layer
    r = data.draw(st.floats(0.1, 10))
    thresholds = limits(model, style, r)
    wanted = clipped_sums(model, squares, inputs, targets, clipping, thresholds)
    engine = build(model, mode, clipping, thresholds)
    split = data.draw(st.sampled_from([1, 2, 3]))
    assert_equal(sums_of(engine, squares, inputs, targets, split), wanted)


@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
def test_an_empty_batch_and_what_came_before_it(mode, clipping, style):
    """Sums and norms are of the last logical batch only."""
    model, (images, targets) = network(), batch(4)
    thresholds = limits(model, style)
    engine = build(model, mode, clipping, thresholds)
    assert engine.norms() is None
    assert [s.shape for s in engine.sums()] == [p.shape for p in model.parameters()]
    first = sums_of(engine, segmentation_loss, images, targets)
    kept = [s.clone() for s in first]
    assert not any(s.any() for s in engine.sums())
    engine.norms()
    assert engine.norms() is None
    again = sums_of(engine, segmentation_loss, images[:2], targets[:2], 1)
    wanted = clipped_sums(
        network(), segmentation_loss, images[:2], targets[:2], clipping, thresholds
    )
    assert_equal(again, wanted)
    assert len(engine.norms()) == 2
    assert distance(first, kept) == 0  # what was handed out is not written to again


@pytest.mark.parametrize(("mode", "clipping", "style"), SPARSIFIED)
def test_masks_come_before_clipping(mode, clipping, style):
    model, (images, targets) = network(), batch(4)
    thresholds = limits(model, style, r=0.9)
    generator = torch.Generator().manual_seed(3)
    masks = [torch.rand(p.shape, generator=generator) < 0.4 for p in model.parameters()]
    reference = network()
    masked = clipped_sums(
        reference, segmentation_loss, images, targets, clipping, thresholds, masks
    )
    engine = build(model, mode, clipping, thresholds)
    engine.masks = masks
    found = sums_of(engine, segmentation_loss, images, targets, 3)
    assert_equal(found, masked)
    assert not any(s[~mask].any() for s, mask in zip(found, masks, strict=True))
    alone = gradients(reference, segmentation_loss, images, targets, masks)
    norms = torch.stack([torch.stack([g.norm() for g in record]) for record in alone])
    if style == "flat":
        norms = norms.norm(dim=1, keepdim=True)
    torch.testing.assert_close(engine.norms(), norms, rtol=1e-9, atol=1e-12)
    engine.masks = None
    whole = clipped_sums(reference, segmentation_loss, images, targets, clipping, thresholds)
    assert_equal(sums_of(engine, segmentation_loss, images, targets), whole)


@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
def test_thresholds_may_move_between_steps(mode, clipping, style):
    model, (images, targets) = network(), batch(4)
    engine = build(model, mode, clipping, limits(model, style))
    for r in (1.4, 0.2):
        engine.thresholds = limits(model, style, r)
        assert engine.thresholds == limits(model, style, r)
        wanted = clipped_sums(
            network(), segmentation_loss, images, targets, clipping, engine.thresholds
        )
        assert_equal(sums_of(engine, segmentation_loss, images, targets), wanted)


@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), r=st.floats(1e-3, 5), scale=st.sampled_from([1, 30]))
def test_one_record_moves_the_sum_by_at_most_the_sensitivity(mode, clipping, style, seed, r, scale):
    """One record more or less by the norm of the thresholds, another record by twice that."""
    model, (images, targets) = network(), batch(4, seed)
    engine = build(model, mode, clipping, limits(model, style, r))
    images = images * scale

    def of(records):
        return sums_of(engine, segmentation_loss, images[records], targets[records])

    base, more, other = of([0, 1]), of([0, 1, 2]), of([0, 3])
    assert distance(more, base) <= r * (1 + 1e-9)
    assert distance(other, base) <= 2 * r * (1 + 1e-9)


@pytest.mark.parametrize("mode", ["hooks", "functorch"])
@pytest.mark.parametrize("clipping", ["abadi", "automatic"])
@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_under_autocast_the_sensitivity_holds(mode, clipping, style):
    """Norms are those of the float32 numbers that are summed, not of bfloat16 ones."""
    model, (images, targets) = network().float(), batch(16)
    r = 0.05
    engine = build(model, mode, clipping, limits(model, style, r))

    def of(records):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = segmentation_loss(engine.model(images[records].float()), targets[records])
        engine.backward(losses)
        return engine.sums()

    empty = engine.sums()
    for record in range(16):
        alone = distance(of([record]), empty)
        assert alone <= r * (1 + 1e-6)
        if clipping == "abadi" and style == "flat":
            assert alone == pytest.approx(r, rel=1e-4)  # Opacus divides by norm + 1e-6
    for size in (2, 7, 15):
        assert distance(of(range(size + 1)), of(range(size))) <= r * (1 + 1e-5)
    assert {s.dtype for s in empty} == {torch.float32}


@pytest.mark.parametrize("mode", ["ew", "ghost"])
def test_autocast_is_refused_where_the_sensitivity_would_not_hold(mode):
    engine = build(network().float(), mode)
    images = batch(2)[0].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            engine.model(images)  # evaluation clips nothing
        with pytest.raises(UserError, match=rf"^precision: found autocast with mode {mode} of"):
            engine.model(images)
