"""Every layer of the Book-Keeping engine against a loop over samples, in float64."""

import pytest
import torch
from bookkeeping_check import check, squares
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dpmedbench.bookkeeping import MODES, BookKeeper
from dpmedbench.mechanisms import TWO_PASSES


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
    "frozen batch without bias": nn.BatchNorm2d(4, bias=False).eval(),
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


FLAT_NORMS = {
    "group": nn.GroupNorm(2, 4),
    "layer": nn.LayerNorm(4),
    "frozen batch": nn.BatchNorm1d(4).eval(),
}


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("norm", FLAT_NORMS.values(), ids=FLAT_NORMS)
def test_normalisation_behind_a_matrix(norm, style):
    """Inputs (B, C), without positions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, targets = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    try:
        check(model, inputs, targets, squares, "mix_opt", style=style)
    finally:
        BookKeeper(model).detach()


def test_instance_normalisation_takes_a_batch():
    """Torch takes two dimensions for one record."""
    model = nn.Sequential(nn.Linear(3, 4), nn.InstanceNorm1d(4, affine=True))
    BookKeeper(model)
    with pytest.raises(ValueError, match=r"layer 1: found an input of shape \(4, 4\), exp"):
        model(torch.rand(4, 3))


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


def test_a_transposed_convolution_takes_its_output_size_by_name():
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(1, 2, 3, stride=2)
    x = torch.rand(2, 1, 4, 4)
    plain = model(x, output_size=(10, 10))
    BookKeeper(model)
    torch.testing.assert_close(model(x, output_size=(10, 10)), plain)


class Sizes(nn.Module):
    """A transposed convolution used twice, for outputs of two sizes."""

    def __init__(self):
        super().__init__()
        self.first, self.up = nn.Conv2d(1, 2, 1), nn.ConvTranspose2d(2, 2, 3, stride=2)

    def forward(self, x):
        x = self.first(x)
        return torch.cat([self.up(x, output_size=(n, n)).flatten(1) for n in (9, 10)], dim=1)


@pytest.mark.parametrize("mode", MODES)
def test_a_transposed_convolution_may_have_two_output_sizes(mode):
    torch.manual_seed(0)
    inputs, targets = torch.randn(3, 1, 4, 4).double(), torch.randn(3).double()
    check(Sizes().double(), inputs, targets, squares, mode)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", MODES)
def test_one_index_a_record(mode, padding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=padding), nn.Tanh(), nn.Linear(4, 2))
    check(model.double(), torch.tensor([0, 2, 3, 3]), torch.randn(4).double(), squares, mode)
