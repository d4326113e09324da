"""The fastDP engine against a loop over the records, in float64; refusals need no fastDP."""

import inspect
import math
import sys

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_loop import clipped_sums
from torch import nn

from dpmedbench import mechanisms
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import fastdp
from dpmedbench.mechanisms._fastdp_layers import check_layers
from dpmedbench.privacy.plan import PrivacyPlan

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


def limits(model, style, r):
    tensors = sum(p.requires_grad for p in model.parameters())
    return (r,) if style == "flat" else (r / math.sqrt(tensors),) * tensors


def plan_for(sigma=1.0, **changes):
    values = {
        "unit": "image",
        "sampling": "poisson",
        "neighbouring": "add_remove",
        "num_records": 88,
        "batch_size": 10,
        "epochs": 100,
        "noise_multiplier": sigma,
        "thresholds": (1.0,),
        "delta": 1e-5,
        "accountant": "rdp",
    }
    return PrivacyPlan(**values | changes)


def feed(engine, losses, inputs, targets, split=100):
    for x, y in zip(inputs.split(split), targets.split(split), strict=True):
        engine.backward(losses(engine.model(x), y))


def same(found, expected):
    """Of each tensor to 1e-9; where its gradients cancel out, to 1e-10 of all tensors."""
    whole = torch.cat([total.flatten() for total in expected]).norm()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm() + 1e-10 * whole


def agrees(model, inputs, targets, losses=squares, mode="mix_opt", r=0.5, split=2, **how):
    """Check the sums, also of batches that are not compared with autograd; the engine."""
    clipping, style = how.get("clipping", "abadi"), how.get("style", "flat")
    thresholds = limits(model, style, r)
    expected = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    engine = fastdp.build(model, mode, clipping, thresholds)
    for _ in range(2):
        feed(engine, losses, inputs, targets, split)
        same(engine.sums(), expected)
    return engine


COMBINATIONS = [(c, s) for c in ("abadi", "automatic") for s in ("flat", "per_layer")]


@needs_fastdp
@pytest.mark.parametrize(("clipping", "style"), COMBINATIONS)
@pytest.mark.parametrize("name", zoo.networks())
def test_networks_equal_a_loop_over_records(name, clipping, style):
    """All modes on the U-Net, the first on the others."""
    model, inputs, targets, losses = zoo.case(name, batch=3)
    thresholds = limits(model, style, 0.5)
    expected = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    for mode in MODES if name == "unet" else MODES[:1]:
        engine = fastdp.build(zoo.case(name)[0], mode, clipping, thresholds)
        feed(engine, losses, inputs, targets, split=2)
        same(engine.sums(), expected)


@needs_fastdp
@pytest.mark.parametrize("r", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("split", [1, 2, 5])
@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_physical_batches_and_thresholds(r, split, style):
    agrees(small(), *records(5), r=r, split=split, style=style)


@st.composite
def small_networks(draw):
    """A network of one or two convolutions, each with a norm, and a linear layer; its input."""
    two = draw(st.booleans())
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if two else (nn.Conv1d, nn.InstanceNorm1d)
    shape, channels, layers = (1, 17, 17) if two else (1, 30), 1, []
    for _ in range(draw(st.integers(1, 2))):
        width = draw(st.sampled_from([2, 4]))
        options = {
            "kernel_size": draw(st.integers(1, 3)),
            "stride": draw(st.integers(1, 2)),
            "padding": draw(st.integers(0, 2)),
            "dilation": draw(st.integers(1, 2)),
            "bias": draw(st.booleans()),
        }
        norms = [nn.GroupNorm(2, width), nn.GroupNorm(1, width), norm(width, affine=True)]
        layers += [conv(channels, width, **options), draw(st.sampled_from(norms)), nn.Tanh()]
        channels = width
    layers.append(nn.Flatten(2))
    tail = nn.Sequential(*layers)(torch.zeros(2, *shape)).shape[2]
    layers += [nn.LayerNorm(tail), nn.Linear(tail, 3, bias=draw(st.booleans()))]
    model = nn.Sequential(*layers)
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    if draw(st.booleans()):
        frozen = draw(st.sampled_from(list(model.parameters())))
        frozen.requires_grad_(False)
    return model.double(), shape


@needs_fastdp
@settings(max_examples=25, deadline=None)
@given(
    drawn=small_networks(),
    mode=st.sampled_from(MODES),
    clipping=st.sampled_from(["abadi", "automatic"]),
    style=st.sampled_from(["flat", "per_layer"]),
    r=st.floats(0.01, 20),
)
def test_small_networks_equal_a_loop_over_records(drawn, mode, clipping, style, r):
    model, shape = drawn
    agrees(model, *records(3, shape), mode=mode, r=r, split=2, clipping=clipping, style=style)


@needs_fastdp
def test_embedding_equals_a_loop_over_records():
    model = network(lambda: nn.Embedding(5, 3, padding_idx=0), lambda: nn.Linear(3, 2))
    inputs = torch.tensor([[0, 1, 1], [2, 3, 4], [4, 0, 4]])
    agrees(model, inputs, records(3)[1], mode="ghost")


@needs_fastdp
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6), r=st.floats(0.01, 5), style=st.sampled_from(["flat", "per_layer"])
)
def test_one_record_adds_at_most_the_clipping_norm(seed, r, style):
    for clipping in ("abadi", "automatic"):
        model, (inputs, targets) = small().float(), records(3, seed=seed)
        engine = fastdp.build(model, "mix_opt", clipping, limits(model, style, r))
        sums = []
        for size in (3, 2):
            feed(engine, squares, 10 * inputs[:size].float(), targets[:size].float())
            sums.append(torch.cat([total.flatten() for total in engine.sums()]))
        assert float((sums[0] - sums[1]).norm()) <= r * (1 + 1e-5)


@needs_fastdp
def test_fastdp_adds_no_noise_and_draws_none():
    model, (inputs, targets) = small(), records(4)
    expected = clipped_sums(model, squares, inputs, targets, "abadi", (0.5,))
    engine = fastdp.build(model, "mix_opt", "abadi", (0.5,), plan_for(sigma=1e6))
    before = torch.get_rng_state()
    feed(engine, squares, inputs, targets, split=3)
    same(engine.sums(), expected)
    assert torch.equal(before, torch.get_rng_state())
    assert engine._fastdp.noise_multiplier == 1e6
    assert all(parameter.grad is None for parameter in engine.parameters)


@needs_fastdp
def test_sums_are_forgotten_and_empty_batches_are_zero():
    model, batch = small(), records(2)
    engine = fastdp.build(model, "mix_opt", "abadi", (0.5,))
    assert [total.shape for total in engine.sums()] == [p.shape for p in model.parameters()]
    feed(engine, squares, *batch)
    once = engine.sums()
    assert all(not total.any() for total in engine.sums())
    model.zero_grad()
    for _ in range(2):
        feed(engine, squares, *batch)
    same(engine.sums(), [2 * total for total in once])
    assert engine.norms() is None
    assert engine.masks is None
    assert engine.thresholds == (0.5,)
    with pytest.raises(AttributeError):  # its hooks would go on with the old ones
        engine.thresholds = (1.0,)


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


def conv(inputs=1, **options):
    return nn.Conv2d(inputs, 2, 3, **{"padding": 1} | options)


def conv_of(inputs):
    return lambda: conv(inputs)


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
    engine = fastdp.build(model, "mix_opt", "abadi", limits(model, style, r))
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
        engine = fastdp.build(model, "mix_opt", clipping, limits(model, "per_layer", r))
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


@needs_fastdp
def test_evaluation_leaves_nothing_behind():
    model, batch = small(), records(2)
    engine = fastdp.build(model, "mix_opt", "abadi", (0.5,))
    with torch.no_grad():
        model(records(5)[0])
    assert not any(hasattr(layer, "activations") for layer in model)
    feed(engine, squares, *batch)
    same(engine.sums(), clipped_sums(small(), squares, *batch, "abadi", (0.5,)))


@needs_fastdp
@pytest.mark.parametrize("mode", MODES)
def test_methods_follow_the_rule_of_the_mode(mode):
    """Ghost norms where 2 T^2 <= p d: T = 36, 16 and 1 positions against 36, 144 and 192."""
    engine = agrees(small(), *records(3), mode=mode)
    formed, ghost = "per-sample gradient", "ghost norm"
    first, second = (ghost, ghost) if mode == "ghost" else (formed, formed)
    assert engine.methods() == {"0": first, "1": formed, "3": second, "5": ghost}


@needs_fastdp
def test_its_own_epsilon_is_at_our_delta():
    """RDP at delta 1e-5 is 29.3; at fastDP's own delta, 1 / (2 N), it would be 21.5."""
    plan = plan_for()
    engine = fastdp.build(small(), "mix_opt", "abadi", (1.0,), plan)
    assert engine.own_epsilon(880) == pytest.approx(29.3, abs=0.05)
    assert engine.own_epsilon(880) == pytest.approx(plan.epsilon(880, "rdp"), rel=0.01)
    assert engine.own_epsilon(0) == 0.0


@needs_fastdp
@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": "shuffled", "neighbouring": "zero_out"},
        {"noise_factors": (1.0,) * 99 + (0.5,)},
        {"noise_factors": (0.5,) * 100},
    ],
)
def test_it_has_no_epsilon_for_what_it_does_not_account(changes):
    engine = fastdp.build(small(), "mix_opt", "abadi", (1.0,), plan_for(**changes))
    assert engine.own_epsilon(10) is None
    assert fastdp.build(small(), "mix_opt", "abadi", (1.0,)).own_epsilon(10) is None


@needs_fastdp
def test_thresholds_must_be_equal():
    model = network(lambda: nn.Linear(2, 1))
    with pytest.raises(UserError, match=r"from 0\.1 to 0\.2, expected the same"):
        fastdp.build(model, "mix_opt", "abadi", (0.1, 0.2))


@needs_fastdp
def test_interface_of_fastdp():
    """What the engine takes for granted; a newer fastDP that breaks it says so here."""
    from fastDP import PrivacyEngine

    parameters = inspect.signature(PrivacyEngine.__init__).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    expected = {
        "batch_size": inspect.Parameter.empty,
        "sample_size": inspect.Parameter.empty,
        "num_steps": None,
        "noise_multiplier": None,
        "target_delta": None,
        "max_grad_norm": 1.0,
        "numerical_stability_constant": None,
        "clipping_mode": "MixOpt",
        "clipping_fn": "automatic",
        "clipping_style": "all-layer",
        "loss_reduction": "mean",
        "accounting_mode": "rdp",
    }
    assert expected.items() <= defaults.items()
    assert list(parameters)[:2] == ["self", "module"]
    assert "steps" in inspect.signature(PrivacyEngine.get_privacy_spent).parameters

    model, (inputs, targets) = small(), records(2)
    engine = fastdp.build(model, "mix_opt", "automatic", (0.25,), plan_for())
    private = model.privacy_engine
    assert private.max_grad_norm == 0.25  # automatic would make it 1
    assert private.numerical_stability_constant == 0.01
    assert [name for name, _ in private.named_layers] == ["0", "1", "3", "5"]
    assert set(private.get_privacy_spent(steps=1)) == {"eps_rdp", "alpha_rdp"}
    losses = squares(model(inputs), targets)
    assert all(len(layer.activations) == 2 for _, layer in private.named_layers)
    engine.backward(losses)
    assert not any(hasattr(layer, "activations") for _, layer in private.named_layers)


def test_missing_fastdp_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastDP", None)
    with pytest.raises(UserError, match=r"found no fastDP .*; run pip install .*@[0-9a-f]{40}\" "):
        fastdp.build(small(), "mix_opt", "abadi", (0.5,))


def test_missing_transformers_is_named(monkeypatch, tmp_path):
    (tmp_path / "fastDP.py").write_text("import transformers\n")
    monkeypatch.delitem(sys.modules, "fastDP", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"\(import of transformers .*transformers=="):
        fastdp.build(small(), "mix_opt", "abadi", (0.5,))


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("clipping", ["abadi", "automatic"])
@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_combinations(mode, clipping, style):
    mechanisms.check("fastdp", mode, clipping, style)
    with pytest.raises(ValueError, match="no per-sample gradients to sparsify"):
        mechanisms.check("fastdp", mode, clipping, style, sparsified=True)


class OwnConv(nn.Conv2d):
    pass


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def _shared():
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers)


REFUSED = {
    "transposed": (lambda: nn.ConvTranspose2d(1, 1, 2), "it knows exactly the types Linear, "),
    "conv3d": (lambda: nn.Conv3d(1, 1, 2), "it knows exactly"),
    "batch norm": (lambda: nn.BatchNorm2d(2), "it knows exactly"),
    "prelu": (nn.PReLU, "it knows exactly"),
    "subclass": (lambda: OwnConv(1, 1, 2), "it knows exactly"),
    "bare parameter": (Bare, "it knows exactly"),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        "it knows exactly",
    ),
    "foreign parameter": (
        lambda: (
            (layer := nn.Linear(2, 2)).register_parameter("gain", nn.Parameter(torch.ones(1)))
            or layer
        ),
        "which has a parameter gain",
    ),
    "groups": (lambda: nn.Conv2d(2, 2, 3, groups=2), "ignores groups=2"),
    "padding mode": (lambda: conv(padding_mode="reflect"), "ignores padding_mode='reflect'"),
    "same": (lambda: nn.Conv1d(1, 1, 3, padding="same"), "padding must be numbers and is 'same'"),
    "statistics": (
        lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True),
        "running statistics would not be private",
    ),
    "frequencies": (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
    "half": (lambda: nn.Linear(2, 2).bfloat16(), "norms in torch.bfloat16"),
    "shared": (_shared, "its parameters are shared"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_fastdp_would_freeze_or_clip_wrongly_are_named(case):
    make, message = REFUSED[case]
    layer = make()
    with pytest.raises(UserError, match=f"fastDP cannot train layer 1.*{message}.*; replace or"):
        check_layers(nn.Sequential(nn.Linear(2, 2), layer))
    check_layers(nn.Sequential(nn.Linear(2, 2), layer.requires_grad_(False)))


def test_a_frozen_model_is_refused():
    with pytest.raises(UserError, match="found no trainable parameter"):
        check_layers(small().requires_grad_(False))


@pytest.mark.parametrize("name", zoo.networks())
def test_networks_pass(name):
    check_layers(zoo.case(name)[0])


@needs_fastdp
def test_build_refuses_them():
    model = network(conv, lambda: nn.ConvTranspose2d(2, 1, 2))
    with pytest.raises(UserError, match=r"cannot train layer 1 \(ConvTranspose2d\)"):
        fastdp.build(model, "mix_opt", "abadi", (0.5,))
