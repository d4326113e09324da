"""The Book-Keeping engine against a loop over samples, in float64."""

import copy
import inspect
from dataclasses import astuple

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_loop import clipped_sums, gradients
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dpmedbench import mechanisms
from dpmedbench.bookkeeping import MODES, BookKeeper
from dpmedbench.bookkeeping.convolution import Convolution
from dpmedbench.bookkeeping.modes import FORMED, GHOST, TWO_PASSES, method
from dpmedbench.bookkeeping.timing import Way, fastest
from dpmedbench.errors import UserError

EXACT = 1e-9


def squares(outputs, targets):
    """A loss a sample: the squared distance to a target, over all positions."""
    return (outputs.flatten(1) - targets[:, None]).square().mean(1)


def apart(found, wanted):
    """The relative distance of two lists of tensors."""
    distance = sum((a - b).square().sum() for a, b in zip(found, wanted, strict=True))
    return (distance / sum(b.square().sum() for b in wanted)).sqrt().item()


def limits(model, style, r):
    tensors = sum(p.requires_grad for p in model.parameters())
    return (r,) if style == "flat" else (r / tensors**0.5,) * tensors


def summed(book, inputs, targets, losses, size=None):
    """The engine's sums over physical batches of `size`."""
    size = size or len(inputs)
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        book.backward(losses(book.model(x), y))
    return book.sums()


def check(model, inputs, targets, losses, mode, clipping="abadi", style="flat", r=None, size=None):
    """Hold one mode against the loop; R is the median norm, so that some are clipped."""
    if r is None:
        norms = [
            torch.stack([g.norm() for g in gradient]).norm().item()
            for gradient in gradients(model, losses, inputs, targets)
        ]
        r = sorted(norms)[len(norms) // 2] or 1.0
    thresholds = limits(model, style, r)
    wanted = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    book = BookKeeper(model, mode, clipping, thresholds)
    assert apart(summed(book, inputs, targets, losses, size), wanted) < EXACT
    return book


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


@st.composite
def convolutions(draw, n):
    """A convolution or its transpose in n dimensions, and the side of an image it takes."""
    groups = draw(st.sampled_from([1, 2, 4]))
    inputs, outputs = (groups * draw(st.integers(1, 2)) for _ in range(2))
    kernel, stride, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(n)) for _ in range(3))
    common = {"stride": stride, "dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
    if draw(st.booleans()):
        padding = tuple(
            draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilation, strict=True)
        )
        most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
        common["output_padding"] = tuple(draw(st.integers(0, m)) for m in most)
        kind = getattr(nn, f"ConvTranspose{n}d")
        return kind(inputs, outputs, kernel, padding=padding, **common), inputs
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(
        st.sampled_from(["same", "valid", "given"])
        if max(stride) == 1
        else st.sampled_from(["valid", "given"])
    )
    if padding == "given":
        padding = tuple(draw(st.integers(0, 2)) for _ in range(n))
    kind = getattr(nn, f"Conv{n}d")
    return kind(inputs, outputs, kernel, padding=padding, padding_mode=mode, **common), inputs


@pytest.mark.parametrize("n", [1, 2, 3])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_convolutions_of_any_geometry(n, data):
    torch.manual_seed(data.draw(st.integers(0, 9)))
    layer, channels = data.draw(convolutions(n))
    side = {1: 11, 2: 8, 3: 7}[n]
    last = nn.Conv1d(layer.out_channels, 2, 1)
    model = nn.Sequential(layer, nn.Flatten(2), nn.Tanh(), last).double()
    inputs = torch.randn(3, channels, *[side] * n, dtype=torch.float64)
    targets = torch.randn(3, dtype=torch.float64)
    mode = data.draw(st.sampled_from(list(MODES)))
    styles = ["flat"] if mode in TWO_PASSES else ["flat", "per_layer"]
    check(model, inputs, targets, squares, mode, style=data.draw(st.sampled_from(styles)))


class Words(nn.Module):
    """Tokens to a vector: embedding with a padding row, layer norm over two dimensions."""

    def __init__(self, padding):
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=padding)
        self.norm = nn.LayerNorm([5, 4])
        self.mix = nn.Linear(4, 3)
        self.last = nn.Linear(15, 2, bias=False)

    def forward(self, tokens):
        return self.last(self.mix(self.norm(self.table(tokens))).tanh().flatten(1))


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_tokens(mode, padding):
    torch.manual_seed(0)
    tokens = torch.randint(7, (4, 5))
    tokens[0] = 2
    targets = torch.randn(4, dtype=torch.float64)
    check(Words(padding).double(), tokens, targets, squares, mode)


class Turned(nn.Module):
    """Rows for columns, as a view."""

    def forward(self, x):
        return x.transpose(2, 3)


NORMS = {
    "group": nn.GroupNorm(2, 4),
    "group of a view": nn.Sequential(Turned(), nn.GroupNorm(2, 4)),
    "layer of a view": nn.Sequential(Turned(), nn.LayerNorm([4, 6, 6])),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "layer": nn.LayerNorm([4, 6, 6]),
    "layer without bias": nn.LayerNorm([6, 6], bias=False),
    "frozen batch": nn.BatchNorm2d(4).eval(),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_normalisation(norm, mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), norm, nn.Tanh(), nn.Conv2d(4, 2, 3)).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
        for buffer in norm.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2)
    inputs = 3 + torch.randn(4, 2, 6, 6, dtype=torch.float64)
    try:
        check(model, inputs, torch.randn(4, dtype=torch.float64), squares, mode)
    finally:
        BookKeeper(model).detach()


class Twice(nn.Module):
    """One layer used twice, with an in-place activation after it; another unused."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.GroupNorm(1, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        for _ in range(2):
            x = functional.relu(self.norm(self.inner(x)), inplace=True)
        return x


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", MODES)
def test_a_layer_used_twice_counts_once_in_the_norm(mode, style):
    if style == "per_layer" and mode in TWO_PASSES:
        pytest.skip("flat only")
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    check(Twice().double(), inputs, torch.zeros(3, dtype=torch.float64), squares, mode, style=style)


@pytest.mark.parametrize("mode", MODES)
def test_a_parameter_shared_by_two_layers_counts_once(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    model[2].weight = model[0].weight
    inputs = torch.randn(5, 4, dtype=torch.float64)
    check(model, inputs, torch.zeros(5, dtype=torch.float64), squares, mode)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_parameters_take_no_part(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 1)).double()
    model[0].weight.requires_grad_(False)
    model[2].requires_grad_(False)
    inputs = torch.randn(5, 4, dtype=torch.float64)
    book = check(model, inputs, torch.zeros(5, dtype=torch.float64), squares, mode)
    assert len(book.parameters) == 3
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", ["mix_opt", "mix_flops", "mix_time"])
def test_masks_come_before_clipping(mode, style):
    model, inputs, targets, losses = zoo.case("unet", batch=3)
    random = torch.Generator().manual_seed(0)
    masks = [torch.rand(p.shape, generator=random) > 0.6 for p in model.parameters()]
    thresholds = limits(model, style, 0.3)
    wanted = clipped_sums(model, losses, inputs, targets, "abadi", thresholds, masks)
    book = BookKeeper(model, mode, "abadi", thresholds)
    book.masks = masks
    assert apart(summed(book, inputs, targets, losses), wanted) < EXACT
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
    thresholds = limits(model, style, 0.7)
    book = BookKeeper(model, mode, clipping, thresholds)
    whole = summed(book, inputs, targets, squares)
    without = summed(book, inputs[1:], targets[1:], squares)
    moved = torch.cat([(a - b).flatten() for a, b in zip(whole, without, strict=True)]).norm()
    assert moved <= 0.7 * (1 + 1e-9)


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in TWO_PASSES])
def test_the_bound_holds_in_half_precision(mode, style):
    """One sample at a time: the sum is its clipped gradient, whose norm must not pass R."""
    model, inputs, targets, losses = zoo.case("unet", batch=6)
    model.float()
    book = BookKeeper(model, mode, "abadi", limits(model, style, 0.01))
    for x, y in zip(inputs.float().split(1), targets.split(1), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = losses(model(x), y)
        book.backward(loss)
        norm = torch.cat([total.flatten() for total in book.sums()]).norm().item()
        assert 0.0099 < norm < 0.01 * (1 + 1e-5)


@pytest.mark.parametrize("mode", TWO_PASSES)
def test_two_passes_are_refused_in_half_precision(mode):
    model, inputs, targets, losses = zoo.case("unet", batch=2)
    book = BookKeeper(model.float(), mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses(model(inputs.float()), targets)
    with pytest.raises(UserError, match=f"mode {mode}: found torch.bfloat16 gradients in layer"):
        book.backward(loss)


def test_norms_and_methods_tell_what_was_done():
    model, inputs, targets, losses = zoo.case("unet", batch=3)
    book = BookKeeper(model, "base")
    assert book.norms() is None
    assert book.methods() == {}
    summed(book, inputs, targets, losses, size=2)
    wanted = [
        torch.stack([g.norm() for g in gradient]).norm()
        for gradient in gradients(book.detach(), losses, inputs, targets)
    ]
    torch.testing.assert_close(book.norms(), torch.stack(wanted)[:, None])
    assert book.norms() is None
    assert set(book.methods().values()) == {GHOST, FORMED}  # convolutions, and their norms
    assert book.methods()["last"] == GHOST


@pytest.mark.parametrize(
    ("mode", "sizes", "wanted"),
    [
        ("mix_opt", (4, 16, 2), GHOST),  # 2 * 16 <= 32
        ("mix_opt", (4, 31, 1), FORMED),
        ("mix_ghost", (4, 16, 2), GHOST),
        ("mix_flops", (4, 8, 8), GHOST),  # 4 * 16 <= 64
        ("mix_flops", (5, 8, 8), FORMED),
        ("base", (10**6, 1, 1), GHOST),
        ("ghost_clip", (10**6, 1, 1), GHOST),
        ("fast_gradient_clip", (1, 10**6, 10**6), FORMED),
        ("base", None, FORMED),
    ],
)
def test_the_choice_of_each_layer_is_the_published_one(mode, sizes, wanted):
    assert method(mode, sizes) == wanted


WAYS = [Way(GHOST, True, "")] + [
    Way(FORMED, keep, form) for keep in (True, False) for form in Convolution.FORMS
]
STRIDED = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding=1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2),
}


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", STRIDED)
def test_every_way_that_time_may_choose_equals_the_loop(kind, way, style):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), STRIDED[kind](), nn.Flatten()).double()
    inputs = torch.rand(5, 1, 9, 8, dtype=torch.float64)
    targets = torch.rand(5, dtype=torch.float64)
    thresholds = limits(model, style, 0.05)
    wanted = clipped_sums(model, squares, inputs, targets, "abadi", thresholds)
    book = BookKeeper(model, "mix_time", "abadi", thresholds)
    book.restore(dict.fromkeys("02", astuple(way)))
    assert apart(summed(book, inputs, targets, squares), wanted) < EXACT
    assert set(book.methods().values()) == {way.method}
    assert book.state() == dict.fromkeys("02", astuple(way))


def test_time_decides_once_for_each_layer_and_keeps_no_gradient_larger_than_x_and_g(monkeypatch):
    tried = []

    def seconds(work, device):
        way = inspect.getclosurevars(work).nonlocals["way"]
        tried.append(way)
        return way.keep  # the ways that keep no x and g are the fastest

    monkeypatch.setattr("dpmedbench.bookkeeping.timing._seconds", seconds)
    # 4 x 36 and 4 x 5,760 numbers in gradients, 4 x 272 and 4 x 586 in x and g
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(576, 10)).double()
    book = BookKeeper(model, "mix_time")
    for _ in range(2):
        book.backward(model(torch.rand(4, 1, 14, 14, dtype=torch.float64)).sum(1))
    assert book.ways["0"] == Way(FORMED, False, "grouped")
    assert book.ways["2"] == Way(GHOST, True, "matrix")
    assert len(tried) == 6 + 2


@pytest.mark.parametrize(
    ("side", "flat", "wanted"),
    [
        (4, True, {(FORMED, True), (FORMED, False), (GHOST, True)}),
        (4, False, {(FORMED, False), (GHOST, True)}),
        (40, True, {(FORMED, True), (FORMED, False)}),  # 1600 (18 + 3) > 8 * 18 * 3
    ],
)
def test_no_way_is_tried_that_arithmetic_rules_out(side, flat, wanted, monkeypatch):
    tried = []

    def seconds(work, device):
        tried.append(inspect.getclosurevars(work).nonlocals["way"])
        return 0.0

    monkeypatch.setattr("dpmedbench.bookkeeping.timing._seconds", seconds)
    monkeypatch.setattr("dpmedbench.bookkeeping.timing.TILE", 2 * 16 * 18)
    layer = Convolution("c", nn.Conv2d(2, 3, 3, padding=1))
    x = torch.rand(2, 2, side, side)
    fastest(layer, x, layer.module(x).detach(), flat)
    assert {(way.method, way.keep) for way in tried} == wanted
    assert ("unfolded" in {way.form for way in tried}) == (side == 4)


@pytest.mark.parametrize("form", Convolution.FORMS)
def test_trying_a_way_leaves_the_layer_as_it_was(form):
    layer = Convolution("c", nn.Conv2d(2, 3, 3))
    x = torch.rand(2, 2, 6, 6)
    way = fastest(layer, x, layer.module(x).detach(), flat=True)
    assert layer.form == "grouped"
    assert way.form in Convolution.FORMS
    layer.form = form
    found = layer.per_sample(x, layer.module(x).detach())
    layer.form = "grouped"
    torch.testing.assert_close(found, layer.per_sample(x, layer.module(x).detach()))


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
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    BookKeeper(nn.Linear(3, 2))
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_without_gradients_nothing_is_recorded_and_detach_gives_the_model_back():
    model, inputs, _, _ = zoo.case("unet", batch=2)
    before = model(inputs)
    book = BookKeeper(model)
    torch.testing.assert_close(model(inputs), before)
    with torch.no_grad():
        assert torch.equal(model(inputs), before)
    assert all("forward" not in vars(m) for m in book.detach().modules())


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * x


class Loud(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Scale(), r"layer 1 \(Scale\): its trainable scale cannot be made private; replace"),
        (nn.PReLU(), r"layer 1 \(PReLU\): its trainable weight cannot"),
        (Loud(3, 3), r"layer 1 \(Loud\): its trainable bias and weight cannot"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), r"layer 1\..* cannot be made"),
        (nn.Embedding(3, 3, max_norm=1.0), r"layer 1 \(Embedding\): max_norm is set, which mixes"),
        (
            nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
            r"track_running_stats would release statistics without noise",
        ),
        (nn.BatchNorm1d(3, track_running_stats=False), r"no running statistics, so that it mixes"),
        (nn.MultiheadAttention(3, 1), r"layer 1 \(MultiheadAttention\): its trainable in_proj"),
    ],
)
def test_a_layer_that_is_not_supported_is_named(layer, message):
    with pytest.raises(UserError, match=message):
        BookKeeper(nn.Sequential(nn.Linear(3, 3), layer))
    BookKeeper(nn.Sequential(nn.Linear(3, 3), layer.requires_grad_(False)))


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return functional.linear(self.inner(x), self.inner.weight)


class Folded(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(x.reshape(-1, 3)).reshape(len(x), -1)


def one_a_sample(outputs):
    return outputs.flatten(1).sum(1)


class Centred(nn.Module):
    """Takes the mean of the batch off, which no layer of torch is asked for."""

    def forward(self, x):
        return x - x.mean(0)


NO_STATISTICS = {"track_running_stats": False}


@pytest.mark.parametrize(
    ("model", "losses", "message"),
    [
        (Elsewhere(), one_a_sample, "parameter inner.weight: got a gradient outside the forward"),
        (
            Folded(),
            one_a_sample,
            "layer inner: found 4 rows in its output, expected the batch of 2",
        ),
        (nn.Linear(3, 3), torch.sum, r"losses: found shape \(\), expected \(B,\)"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(False)),
            one_a_sample,
            "model: layer 1 is BatchNorm in training mode, which mixes the records",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False, **NO_STATISTICS).eval()),
            one_a_sample,
            "model: layer 1 has no running statistics",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), Centred(), nn.Linear(3, 3)),
            one_a_sample,
            "layer 0: what it gives for one record is in the loss of another",
        ),
    ],
)
def test_what_would_not_be_clipped_is_refused(model, losses, message):
    book = BookKeeper(model)
    shape = (2, 2, 3) if isinstance(model, Folded) else (2, 3)
    with pytest.raises(UserError, match=message):
        book.backward(losses(model(torch.randn(shape))))
    assert not any(total.any() for total in book.sums())


def test_one_record_alone_says_nothing_of_mixing():
    """The first batch may be of one: the next one tells."""
    book = BookKeeper(nn.Sequential(nn.Linear(3, 3), Centred(), nn.Linear(3, 3)))
    book.backward(one_a_sample(book.model(torch.randn(1, 3))))
    with pytest.raises(UserError, match="in the loss of another"):
        book.backward(one_a_sample(book.model(torch.randn(2, 3))))


def test_activations_may_be_recomputed():
    """Reentrant checkpoints refuse to be looked at one record at a time."""

    class Recomputed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return checkpoint(self.second, self.first(x), use_reentrant=True)

    torch.manual_seed(0)
    model, x = Recomputed().double(), torch.randn(4, 3, dtype=torch.float64)
    wanted = BookKeeper(nn.Sequential(copy.deepcopy(model.first), copy.deepcopy(model.second)))
    book = BookKeeper(model)
    for one in (wanted, book):
        one.backward(one_a_sample(one.model(x)))
    for total, expected in zip(book.sums(), wanted.sums(), strict=True):
        torch.testing.assert_close(total, expected)


def test_parameters_in_half_precision_are_refused():
    with pytest.raises(UserError, match=r"layer 0 \(Linear\): found parameters in half precision"):
        BookKeeper(nn.Sequential(nn.Linear(3, 3).bfloat16()))


def test_a_transposed_convolution_takes_its_output_size_by_name():
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(1, 2, 3, stride=2)
    x = torch.rand(2, 1, 4, 4)
    plain = model(x, output_size=(10, 10))
    BookKeeper(model)
    torch.testing.assert_close(model(x, output_size=(10, 10)), plain)


def test_an_ordinary_backward_pass_is_refused():
    model = nn.Linear(3, 3)
    BookKeeper(model)
    with pytest.raises(UserError, match=r"loss.backward\(\): found a backward pass of a private"):
        model(torch.randn(2, 3)).sum().backward()
    assert model.weight.grad is None


def test_a_gradient_from_elsewhere_is_refused():
    model = nn.Linear(3, 3)
    book = BookKeeper(model)
    model.bias.grad = torch.zeros(3)
    with pytest.raises(UserError, match="parameter bias: holds a gradient from elsewhere"):
        book.backward(one_a_sample(model(torch.randn(2, 3))))


def test_activations_that_are_recomputed_are_refused_where_they_would_count_wrong():
    inner = nn.Linear(3, 3)

    def block(x):
        return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=True)

    book = BookKeeper(nn.Sequential(inner))
    outputs = block(block(torch.randn(2, 3, requires_grad=True)))
    with pytest.raises(UserError, match="layer 0: used again after its norm was taken"):
        book.backward(one_a_sample(outputs))
