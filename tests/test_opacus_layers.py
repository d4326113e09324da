"""What the engines on Opacus do with odd layers: clip them rightly or refuse them, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from per_sample_loop import assert_equal, clipped_sums, limits, normal, squares, sums_of
from torch import nn

from dpmedbench.errors import UserError
from dpmedbench.mechanisms import opacus
from dpmedbench.privacy.contract import ContractBroken

MODES = opacus.CAPABILITIES.modes
STYLES = [(mode, style) for mode in MODES for style in ("flat", "per_layer")]
STYLES.remove(("ghost", "per_layer"))


def build(model, mode, clipping="abadi", thresholds=(1.3,)):
    return opacus.build(model, mode, clipping, thresholds)


class Twice(nn.Module):
    """One layer used twice, as U-Nets with shared weights or recurrent nets do."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Scaled(nn.Module):
    """Parameters of its own beside a layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 0.7))
        self.offset = nn.Parameter(torch.tensor([0.3]))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(torch.tanh(x * self.scale + self.offset))


class Branches(nn.Module):
    """The output of a convolution goes straight into a concatenation, as in a U-Net."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x), x], dim=1)


class Turned(nn.Module):
    """A convolution whose input is a permuted view."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)).transpose(2, 3))


def frozen_in_part():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 1))
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def channels_last(x):
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("mode", "style"), STYLES)
@pytest.mark.parametrize(
    ("make", "inputs", "unable"),
    [
        (lambda: Twice(nn.Conv2d(2, 2, 3)), normal(3, 2, 6, 6), ()),
        (lambda: Twice(nn.Linear(3, 3)), normal(3, 3), ("ghost",)),
        (Tied, normal(3, 3), ("ghost",)),
        (Scaled, normal(3, 3), ("ew",)),
        (Branches, normal(3, 2, 5, 6), ()),
        (Turned, normal(3, 2, 5, 6), ()),
        (Branches, channels_last(normal(3, 2, 5, 6)), ()),
        (lambda: nn.Conv2d(4, 2, 2), channels_last(normal(3, 4, 6, 5)), ()),
        (lambda: nn.Conv2d(4, 2, 3, padding=1), channels_last(normal(3, 4, 1, 1)), ()),
        (frozen_in_part, normal(3, 2, 5, 5), ()),
        (lambda: nn.Linear(3, 2), normal(3, 2, 4, 3), ("ghost",)),
        (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), normal(3, 2, 4, 4), ("ew",)),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.PReLU()), normal(3, 2, 4, 4), ("ew",)),
        (
            lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
            normal(3, 2, 4, 4),
            ("hooks", "ghost"),
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)),
            normal(3, 2, 4, 4),
            ("hooks", "functorch", "ghost"),
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, bias=False), nn.Linear(4, 2)),
            normal(3, 3),
            ("hooks", "ghost"),
        ),
        (
            lambda: nn.Sequential(nn.Embedding(4, 3, padding_idx=1), nn.Linear(3, 2)),
            torch.tensor([[0, 1], [2, 1], [3, 3]]),
            ("hooks", "ew", "ghost"),
        ),
    ],
)
def test_an_odd_net_is_clipped_rightly_or_refused(make, inputs, unable, mode, style):
    torch.manual_seed(0)
    model, targets = make().double(), normal(3, seed=5)
    thresholds = limits(model, style)
    if mode in unable:
        with pytest.raises(UserError, match=r"^model: found .*; (use mode|set inplace=False)"):
            sums_of(build(model, mode, "abadi", thresholds), squares, inputs, targets)
        return
    for clipping in ("abadi", "automatic"):
        torch.manual_seed(0)
        model = make().double()
        wanted = clipped_sums(model, squares, inputs, targets, clipping, thresholds)
        engine = build(model, mode, clipping, thresholds)
        assert_equal(sums_of(engine, squares, inputs, targets), wanted)


@pytest.mark.parametrize("mode", MODES)
def test_unused_parameters_have_zero_sums(mode):
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "spare": nn.Linear(3, 2)}).double()
    model.forward = lambda x: model["used"](x)
    inputs, targets = normal(3, 3), normal(3)
    wanted = clipped_sums(model, squares, inputs, targets, "abadi", (1.0,))
    found = sums_of(build(model, mode, "abadi", (1.0,)), squares, inputs, targets, 2)
    assert_equal(found, wanted)
    assert not found[2].any()
    assert not found[3].any()


@pytest.mark.parametrize(
    ("layer", "why", "modes"),
    [
        (nn.BatchNorm2d(2), "mixes the records", MODES),
        (nn.BatchNorm2d(2, affine=False), "mixes the records", MODES),
        (nn.InstanceNorm2d(2, affine=True, track_running_stats=True), "running statistics", MODES),
        (nn.InstanceNorm2d(2, track_running_stats=True), "running statistics", MODES),
        (nn.BatchNorm2d(2, affine=False, track_running_stats=False).eval(), "mixes", MODES),
        (nn.Embedding(3, 2, max_norm=1.0), "mix records", MODES),
        (nn.Embedding(3, 2, scale_grad_by_freq=True), "mix records", MODES),
        (nn.Embedding(3, 2, sparse=True), "mix records", MODES),
        (nn.EmbeddingBag(3, 2), "first dimension", MODES),
        (nn.MultiheadAttention(2, 1), "DPMultiheadAttention", MODES),
        (nn.LSTM(2, 2), "DPLSTM", MODES),
        (nn.utils.spectral_norm(nn.Linear(2, 2)), "buffers", MODES),
        (nn.Embedding(3, 2, padding_idx=0), "padding_idx", ("hooks", "ew", "ghost")),
        (nn.Conv1d(2, 2, 3, padding_mode="circular"), "padding_mode circ", ("hooks", "ghost")),
        (nn.Conv3d(2, 2, 3, padding_mode="replicate"), "padding_mode rep", ("hooks", "ghost")),
        (nn.LayerNorm(2, bias=False), "no bias", ("hooks", "ghost")),
        (nn.ReLU(inplace=True), "inplace=False", ("hooks", "functorch", "ghost")),
        (nn.Conv3d(2, 2, 2, dilation=2), "three dimensions", ("ew",)),
        (nn.ConvTranspose2d(2, 2, 2), "no expanded weights", ("ew",)),
        (nn.PReLU(), "no expanded weights", ("ew",)),
    ],
)
def test_a_layer_that_opacus_cannot_do_is_named(layer, why, modes):
    name = type(layer).__name__
    for mode in MODES:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Identity(), layer))
        if mode in modes:
            with pytest.raises(UserError, match=rf"layer 1\.1 \({name}\).* mode {mode} .*{why}"):
                build(model, mode)
        else:
            build(copy.deepcopy(model), mode)


class Shifted(nn.Module):
    """A scalar parameter."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x + self.shift)


@pytest.mark.parametrize("mode", ["hooks", "functorch"])
def test_a_scalar_parameter_has_no_abadi_clipping_per_layer(mode):
    """Opacus' optimizer would take its norm over the batch."""
    inputs, targets = normal(3, 3), normal(3)
    for clipping, style in sorted(MODES[mode].combinations):
        torch.manual_seed(0)
        model = Shifted().double()
        thresholds = limits(model, style)
        if (clipping, style) == ("abadi", "per_layer"):
            with pytest.raises(UserError, match="found the scalar parameter shift"):
                build(model, mode, clipping, thresholds)
            continue
        wanted = clipped_sums(model, squares, inputs, targets, clipping, thresholds)
        engine = build(model, mode, clipping, thresholds)
        assert_equal(sums_of(engine, squares, inputs, targets), wanted)


class AroundTheLayer(nn.Module):
    """Takes the weight of a layer without calling it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x @ self.layer.weight + 0 * self.layer(x)


class Merged(nn.Module):
    """Merges the batch with another dimension before a layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Mixing(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        output = self.layer(x)
        return output - output.mean(0)


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (AroundTheLayer, "a gradient of norm"),
        (Merged, "gradients of 6 records"),
        (Mixing, "a gradient of norm"),
    ],
)
def test_gradients_that_opacus_does_not_see_rightly_are_refused(make, found, mode):
    engine = build(make().double(), mode)
    with pytest.raises(UserError, match=rf"^model: found {found}.* on layer\."):
        sums_of(engine, squares, normal(3, 2, 3), normal(3))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_what_mixes_records_shows_after_batches_of_one(mode):
    """Poisson batches may begin with one record; no later one is compared again."""
    engine = build(Mixing().double(), mode)
    sums_of(engine, squares, normal(1, 3), normal(1))
    assert engine.trials == 1  # a step that takes more
    engine._alone = None
    sums_of(engine, squares, normal(1, 3), normal(1))
    del engine._alone
    with pytest.raises(UserError, match=r"^model: found a gradient of norm"):
        sums_of(engine, squares, normal(3, 3), normal(3))
    assert engine.trials == 2


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_a_forward_pass_without_its_backward_pass_is_refused(mode):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 1)).double()
    engine = build(model, mode)
    engine.model(normal(3, 2, 5, 5))
    with pytest.raises(UserError, match=r"found a gradient on 0\.weight that mode"):
        sums_of(engine, squares, normal(3, 2, 5, 5), normal(3))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_an_ordinary_backward_pass_is_found_out(mode):
    """Under ghost it leaves unclipped gradients without a word."""
    model, inputs, targets, losses_of = zoo.case("unet")
    engine = build(model, mode)
    found = sums_of(engine, losses_of, inputs, targets)
    losses_of(engine.model(inputs), targets).sum().backward()
    assert not any(s.any() for s in engine.sums())
    losses = losses_of(engine.model(inputs), targets)
    with pytest.raises(ContractBroken, match=r"found a gradient on first\.conv_0\.conv\.weight be"):
        engine.backward(losses)
    torch.optim.SGD(model.parameters()).zero_grad()  # what Opacus left is still there
    with pytest.raises(ContractBroken, match=r"found a gradient on first\.conv_0\.conv\.weight be"):
        engine.backward(losses)
    assert any(s.any() for s in found)


def test_methods_say_how_each_norm_is_got():
    def net():
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.PReLU(), nn.Flatten(), nn.Linear(2, 2), nn.Embedding(2, 2)
        )

    assert build(net(), "hooks").methods() == {
        "0": "per-sample gradient",
        "1": "functorch",
        "3": "per-sample gradient",
        "4": "per-sample gradient",
    }
    assert set(build(net(), "functorch").methods().values()) == {"functorch"}
    assert build(net(), "ghost").methods() == {
        "0": "fast gradient clipping",
        "1": "fast gradient clipping",
        "3": "ghost norm",
        "4": "ghost norm",
    }
    model = zoo.case("unet")[0]
    assert set(build(model, "ew").methods().values()) == {"expanded weights"}
    assert len(build(zoo.case("unet")[0], "hooks").methods()) == sum(
        bool(list(layer.parameters(recurse=False))) for layer in model.modules()
    )
