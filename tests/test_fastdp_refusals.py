"""What fastDP clips wrongly is refused on the first batch, and nothing else is."""

import pytest
import torch
from fastdp_check import (
    agrees,
    conv,
    conv_of,
    feed,
    needs_fastdp,
    network,
    records,
    same,
    small,
    squares,
)
from per_sample_loop import clipped_sums, equal_limits
from torch import nn

from dpmedbench.errors import UserError
from dpmedbench.mechanisms import fastdp


class Wired(nn.Module):
    """Layers in the order of their registration, and a forward of one's own."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.wiring = forward
        self.double()

    def forward(self, x):
        return self.wiring(self, x)


@needs_fastdp
def test_a_layer_without_a_gradient_has_a_sum_of_zero():
    model = Wired(lambda m, x: m.last(m.first(x)), first=conv(), unused=conv(), last=conv(2))
    engine = agrees(model, *records(3))
    feed(engine, squares, *records(3))
    assert [bool(total.any()) for total in engine.sums()] == [True, True, False, False, True, True]


@needs_fastdp
def test_branches_and_in_place_activations_are_clipped():
    model = Wired(
        lambda m, x: m.last(m.act(m.first(x)) + m.second(2 * x)),
        first=conv(),
        second=conv(),
        act=nn.ReLU(inplace=True),
        last=conv(2),
    )
    agrees(model, *records(3))


class Mixed(nn.Module):
    """Takes the mean over the batch away: what comes out of a record depends on the others."""

    def forward(self, x):
        return x - x.mean(0)


WRONG = {
    "a layer used twice": (
        lambda: Wired(lambda m, x: m.last(m.last(m.first(x))), first=conv(), last=conv(2)),
        "not those of autograd|2 times",
    ),
    "a head registered first": (
        lambda: Wired(lambda m, x: m.head(m.body(x)), head=conv(2), body=conv()),
        r"clipped the gradient of body\.weight 0 times",
    ),
    "a branch before the first layer": (
        lambda: Wired(
            lambda m, x: m.last(m.side(x) + m.first(x)), first=conv(), side=conv(), last=conv(2)
        ),
        r"clipped the gradient of side\.weight 0 times",
    ),
    "an in-place operation on a view": (
        lambda: network(
            conv, lambda: nn.InstanceNorm2d(2, affine=True), lambda: nn.ReLU(inplace=True)
        ),
        r"clipped the gradient of 1\.weight 0 times",
    ),
    "a bias outside of its layer": (
        lambda: Wired(
            lambda m, x: m.last(m.first(x)) * m.first.bias.sum(), first=conv(), last=conv(2)
        ),
        "not those of autograd",
    ),
    "records that mix": (lambda: network(conv, Mixed, conv_of(2)), "mixes records"),
    "rows that are no records": (
        lambda: Wired(lambda m, x: m.last(x.flatten(0, 2)).view(len(x), -1), last=nn.Linear(8, 1)),
        "layer last has 24 rows for a batch of 3",
    ),
}
ORDER = {"a head registered first", "a branch before the first layer"}


@needs_fastdp
@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("r", [0.1, 1e6])
@pytest.mark.parametrize("case", WRONG)
def test_what_fastdp_clips_wrongly_is_refused_on_the_first_batch(case, r, style):
    """Also where nothing is clipped (r = 1e6). Per layer the order of layers is free."""
    make, message = WRONG[case]
    model = make()
    if style == "per_layer" and case in ORDER:
        agrees(model, *records(3), r=r, style=style)
        return
    engine = fastdp.build(model, "mix_opt", "abadi", equal_limits(model, style, r))
    with pytest.raises(UserError, match=message):
        feed(engine, squares, *records(3))


@needs_fastdp
def test_a_first_batch_of_one_record_is_not_enough():
    engine = fastdp.build(network(conv, Mixed, conv_of(2)), "mix_opt", "abadi", (0.1,))
    feed(engine, squares, *records(1))
    with pytest.raises(UserError, match="mixes records"):
        feed(engine, squares, *records(3))


@needs_fastdp
def test_a_record_without_a_gradient_leaves_the_comparison_to_the_next_batch():
    model, (inputs, targets) = small(), records(3)
    expected = clipped_sums(model, squares, inputs[1:], targets[1:], "abadi", (0.5,))
    engine = fastdp.build(model, "mix_opt", "abadi", (0.5,))
    losses = squares(model(inputs), targets) * torch.tensor([0.0, 1.0, 1.0])
    engine.backward(losses)
    assert engine.methods() == {}
    same(engine.sums(), expected)
    feed(engine, squares, inputs, targets)
    assert engine.methods()


@needs_fastdp
@pytest.mark.parametrize("r", [1.0, 1e4])
def test_float32_networks_with_cancelling_gradients_are_not_refused(r):
    """A bias before an instance norm has no gradient but for rounding."""
    for clipping in ("abadi", "automatic"):
        model = network(conv, *[lambda: nn.InstanceNorm2d(2, affine=True), conv_of(2)] * 3).float()
        engine = fastdp.build(model, "mix_opt", clipping, equal_limits(model, "per_layer", r))
        inputs, targets = records(3, (1, 64, 64))
        feed(engine, squares, inputs.float(), targets.float())


@needs_fastdp
def test_half_precision_is_refused():
    model = small().float()
    engine = fastdp.build(model, "mix_opt", "abadi", (0.5,))
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(UserError, match="expected float32 with engine fastdp"),
    ):
        engine.model(records(2)[0].float())
