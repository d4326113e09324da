"""How the modes of the Book-Keeping engine choose what each layer does, and what they tell."""

import inspect
from dataclasses import astuple

import pytest
import torch
import zoo
from bookkeeping_check import squares
from per_sample_loop import assert_equal, clipped_sums, equal_limits, gradients, sums_of
from torch import nn

from dpmedbench.bookkeeping import MODES, BookKeeper
from dpmedbench.bookkeeping.convolution import Convolution
from dpmedbench.bookkeeping.modes import FORMED, GHOST, method
from dpmedbench.bookkeeping.timing import Way, differs, fastest, ways


def test_norms_and_methods_tell_what_was_done():
    model, inputs, targets, losses = zoo.case("unet", batch=3)
    book = BookKeeper(model, "base")
    assert book.norms() is None
    assert book.methods() == {}
    sums_of(book, losses, inputs, targets, 2)
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


CPU = torch.device("cpu")
WAYS = [Way(GHOST, True, "", 5)] + [
    Way(FORMED, keep, form, 5) for keep in (True, False) for form in Convolution.FORMS
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
    thresholds = equal_limits(model, style, 0.05)
    wanted = clipped_sums(model, squares, inputs, targets, "abadi", thresholds)
    book = BookKeeper(model, "mix_time", "abadi", thresholds)
    book.restore(dict.fromkeys("02", astuple(way)))
    assert_equal(sums_of(book, squares, inputs, targets), wanted)
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
    assert book.state() == {"0": (FORMED, False, "grouped", 4), "2": (GHOST, True, "matrix", 4)}
    assert len(tried) == 6 + 2


def test_time_decides_anew_for_a_batch_that_is_larger_by_half(monkeypatch):
    """The first Poisson batch may be of one record."""
    found = iter(("matrix", "later", "last"))
    monkeypatch.setattr(
        "dpmedbench.bookkeeping.timing.fastest",
        lambda layer, x, g, tried: Way(FORMED, False, next(found), len(x)),
    )
    model = nn.Linear(3, 2)
    book = BookKeeper(model, "mix_time")
    for size, form, records in [(1, "matrix", 1), (6, "later", 6), (8, "later", 6), (9, "last", 9)]:
        book.backward(model(torch.rand(size, 3)).sum(1))
        assert book.state() == {"": (FORMED, False, form, records)}
    assert book.trials == 3


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "mix_time"])
def test_only_a_gpu_is_asked_which_form_is_the_fastest(mode, monkeypatch):
    """Wherever a convolution's gradients are formed, used twice or not; the sums are the same."""
    tried = []

    def seconds(work, device):
        way = inspect.getclosurevars(work).nonlocals["way"]
        tried.append(way)
        return way.form != "looped"

    monkeypatch.setattr("dpmedbench.bookkeeping.timing._seconds", seconds)
    torch.manual_seed(0)
    twice = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(twice, nn.Tanh(), twice, nn.Conv2d(2, 3, 3), nn.Flatten()).double()
    inputs = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    targets = torch.rand(3, dtype=torch.float64)
    wanted = clipped_sums(model, squares, inputs, targets, "abadi", (0.05,))
    for gpu in (False, True):
        monkeypatch.setattr("dpmedbench.bookkeeping.timing.differs", {CPU: gpu}.get)
        book = BookKeeper(model, mode, "abadi", (0.05,))
        assert_equal(sums_of(book, squares, inputs, targets), wanted)
        formed = {name for name, how in book.methods().items() if how == FORMED}
        assert "0" in formed
        assert set(book.state()) == (formed if gpu else set())
        forms = {layer.form for layer in book._layers if layer.name in formed}
        assert forms == {"looped" if gpu else "grouped"}
        book.detach()
    assert set(book.state().values()) == {(FORMED, False, "looped", 3)}
    assert {way.form for way in tried} == set(Convolution.FORMS)


def test_what_is_a_gpu():
    assert differs(torch.device("cuda", 0))
    assert not differs(CPU)


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
    g = layer.module(x).detach()
    fastest(layer, x, g, ways(layer, x, g, flat))
    assert {(way.method, way.keep) for way in tried} == wanted
    assert ("unfolded" in {way.form for way in tried}) == (side == 4)


@pytest.mark.parametrize("form", Convolution.FORMS)
def test_trying_a_way_leaves_the_layer_as_it_was(form):
    layer = Convolution("c", nn.Conv2d(2, 3, 3))
    x = torch.rand(2, 2, 6, 6)
    g = layer.module(x).detach()
    way = fastest(layer, x, g, ways(layer, x, g, flat=True))
    assert layer.form == "grouped"
    assert way.form in Convolution.FORMS
    layer.form = form
    found = layer.per_sample(x, g)
    layer.form = "grouped"
    torch.testing.assert_close(found, layer.per_sample(x, g))
