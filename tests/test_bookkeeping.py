"""The Book-Keeping engine against a loop over samples, in float64."""

import copy

import pytest
import torch
import zoo
from bookkeeping_check import check, squares
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_loop import assert_equal, clipped_sums, equal_limits, sums_of
from torch import nn

from dpmedbench import mechanisms
from dpmedbench.bookkeeping import MODES, BookKeeper
from dpmedbench.bookkeeping.modes import FORMED, GHOST
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import TWO_PASSES

COMBINATIONS = [
    (mode, clipping, style)
    for mode in MODES
    for clipping in ("abadi", "automatic")
    for style in ("flat", "per_layer")
    if style == "flat" or mode not in TWO_PASSES
]


@pytest.mark.parametrize("name", zoo.networks())
@pytest.mark.parametrize(("mode", "clipping", "style"), COMBINATIONS)
def test_every_mode_equals_the_loop_on_every_network(name, mode, clipping, style):
    model, inputs, targets, losses = zoo.case(name, batch=4)
    check(model, inputs, targets, losses, mode, clipping, style)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("mode", MODES)
def test_physical_batches_change_nothing(mode, size):
    model, inputs, targets, losses = zoo.case("unet", batch=5)
    check(model, inputs, targets, losses, mode, size=size)


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", ["mix_opt", "mix_flops", "mix_time"])
def test_masks_come_before_clipping(mode, style):
    model, inputs, targets, losses = zoo.case("unet", batch=3)
    random = torch.Generator().manual_seed(0)
    masks = [torch.rand(p.shape, generator=random) > 0.6 for p in model.parameters()]
    thresholds = equal_limits(model, style, 0.3)
    wanted = clipped_sums(model, losses, inputs, targets, "abadi", thresholds, masks)
    book = BookKeeper(model, mode, "abadi", thresholds)
    book.masks = masks
    assert_equal(sums_of(book, losses, inputs, targets), wanted)
    assert mechanisms.capabilities("bookkeeping").modes[mode].sparsification


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 50),
    scale=st.floats(0.01, 100),
    combination=st.sampled_from(COMBINATIONS),
)
def test_one_record_moves_the_sum_by_at_most_the_norm_of_the_thresholds(seed, scale, combination):
    mode, clipping, style = combination
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64, 3),
    ).double()
    inputs = scale * torch.randn(6, 1, 6, 6, dtype=torch.float64)
    targets = scale * torch.randn(6, dtype=torch.float64)
    thresholds = equal_limits(model, style, 0.7)
    book = BookKeeper(model, mode, clipping, thresholds)
    whole = sums_of(book, squares, inputs, targets)
    without = sums_of(book, squares, inputs[1:], targets[1:])
    moved = torch.cat([(a - b).flatten() for a, b in zip(whole, without, strict=True)]).norm()
    assert moved <= 0.7 * (1 + 1e-9)


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in TWO_PASSES])
def test_the_bound_holds_in_half_precision(mode, style):
    """One sample at a time: the sum is its clipped gradient, whose norm must not pass R."""
    model, inputs, targets, losses = zoo.case("unet", batch=6)
    model.float()
    book = BookKeeper(model, mode, "abadi", equal_limits(model, style, 0.01))
    for x, y in zip(inputs.float().split(1), targets.split(1), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = losses(model(x), y)
        book.backward(loss)
        norm = torch.cat([total.flatten() for total in book.sums()]).norm().item()
        assert 0.0099 < norm < 0.01 * (1 + 1e-5)


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in TWO_PASSES])
def test_a_backward_pass_inside_autocast_is_the_one_outside(mode, style):
    def sums(inside):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        book = BookKeeper(model, mode, "abadi", equal_limits(model, style, 0.01))
        book.restore({"0": (FORMED, True, "looped", 6), "3": (GHOST, True, "matrix", 6)})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = squares(model(torch.randn(6, 1, 6, 6)), torch.zeros(6))
            if inside:
                book.backward(losses)
        if not inside:
            book.backward(losses)
        return book.sums()

    for found, wanted in zip(sums(inside=True), sums(inside=False), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_losses_in_half_precision_do_not_round_the_norms(style):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    book = BookKeeper(model, "mix_opt", "abadi", equal_limits(model, style, 0.01))
    for x in torch.randn(20, 1, 5):
        book.backward(model(x).square().sum(1).bfloat16())
        norm = torch.cat([total.flatten() for total in book.sums()]).norm().item()
        assert norm < 0.01 * (1 + 1e-5)


@pytest.mark.parametrize("mode", TWO_PASSES)
def test_two_passes_are_refused_for_losses_in_half_precision(mode):
    book = BookKeeper(nn.Linear(5, 3), mode)
    with pytest.raises(UserError, match=f"mode {mode}: found torch.bfloat16 losses; two passes"):
        book.backward(book.model(torch.randn(2, 5)).sum(1).bfloat16())


@pytest.mark.parametrize("mode", TWO_PASSES)
def test_two_passes_are_refused_in_half_precision(mode):
    model, inputs, targets, losses = zoo.case("unet", batch=2)
    book = BookKeeper(model.float(), mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses(model(inputs.float()), targets)
    with pytest.raises(UserError, match=f"mode {mode}: found torch.bfloat16 gradients in layer"):
        book.backward(loss)


def test_an_empty_batch_has_zero_sums():
    model, inputs, targets, losses = zoo.case("unet", batch=2)
    book = BookKeeper(model)
    book.backward(losses(model(inputs[:0]), targets[:0]))
    assert all(not total.any() for total in book.sums())
    assert book.norms() is None


def test_a_deep_copy_computes_with_its_own_weights():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    BookKeeper(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    x = torch.rand(4, 3)
    assert copied(x).abs().max() == 0  # with gradients, and without:
    with torch.no_grad():
        assert copied(x).abs().max() == 0
        assert model(x).abs().max() > 0


def test_float32_is_not_rounded_to_tf32():
    def allow():
        torch.backends.fp32_precision = "tf32"
        torch.set_float32_matmul_precision("high")

    def allowed():
        parts = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
        return any(part.fp32_precision != "ieee" for part in parts)

    allow()
    book = BookKeeper(nn.Linear(3, 2))
    assert not allowed()
    allow()
    book.backward(book.model(torch.rand(2, 3)).sum(1))
    assert not allowed()


@pytest.mark.parametrize("mode", MODES)
def test_sums_keep_nothing_of_their_batches(mode):
    """A graph behind a sum would hold the activations of all physical batches of a step."""
    model, inputs, targets, losses = zoo.case("unet", batch=4)
    sums = sums_of(BookKeeper(model, mode), losses, inputs, targets, split=2)
    assert not any(total.requires_grad for total in sums)


def test_without_gradients_nothing_is_recorded_and_detach_gives_the_model_back():
    model, inputs, _, _ = zoo.case("unet", batch=2)
    before = model(inputs)
    book = BookKeeper(model)
    torch.testing.assert_close(model(inputs), before)
    with torch.no_grad():
        assert torch.equal(model(inputs), before)
    assert all("forward" not in vars(m) for m in book.detach().modules())
