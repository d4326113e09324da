"""The fastDP engine against a loop over the records, in float64; refusals need no fastDP."""

import inspect
import sys

import pytest
import torch
import zoo
from fastdp_check import MODES, agrees, feed, needs_fastdp, network, records, same, small, squares
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_loop import clipped_sums, equal_limits
from torch import nn

from dpmedbench import mechanisms
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import fastdp
from dpmedbench.privacy.plan import PrivacyPlan


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


COMBINATIONS = [(c, s) for c in ("abadi", "automatic") for s in ("flat", "per_layer")]


@needs_fastdp
@pytest.mark.parametrize(("clipping", "style"), COMBINATIONS)
@pytest.mark.parametrize("name", zoo.networks())
def test_networks_equal_a_loop_over_records(name, clipping, style):
    """All modes on the U-Net, the first on the others."""
    model, inputs, targets, losses = zoo.case(name, batch=3)
    thresholds = equal_limits(model, style, 0.5)
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
        engine = fastdp.build(model, "mix_opt", clipping, equal_limits(model, style, r))
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
