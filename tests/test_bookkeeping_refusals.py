"""What the Book-Keeping engine could not clip is refused in one sentence."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dpmedbench.bookkeeping import BookKeeper
from dpmedbench.errors import UserError


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


class Since(nn.Module):
    """Adds up what came so far: along the batch, and from its end where `back`."""

    def __init__(self, back):
        super().__init__()
        self.back = back

    def forward(self, x):
        return x.flip(0).cumsum(0).flip(0) if self.back else x.cumsum(0)


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
        *(
            (
                nn.Sequential(nn.Linear(3, 3), Since(back), nn.Linear(3, 3)),
                one_a_sample,
                "layer 0: what it gives for one record is in the loss of another",
            )
            for back in (False, True)
        ),
    ],
)
def test_what_would_not_be_clipped_is_refused(model, losses, message):
    book = BookKeeper(model)
    shape = (2, 2, 3) if isinstance(model, Folded) else (2, 3)
    with pytest.raises(UserError, match=message):
        book.backward(losses(model(torch.randn(shape))))
    assert not any(total.any() for total in book.sums())


class Running(nn.Module):
    """Takes a running mean off, which it keeps as torch does or as a new tensor."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training:
            now = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.mean = self.mean.copy_(now) if self.in_place else now
        return x - self.mean


@pytest.mark.parametrize("in_place", [True, False])
def test_a_buffer_that_the_forward_pass_changes_is_refused(in_place):
    """It is behind no trained layer, so that no gradient tells."""
    model = nn.Sequential(Running(in_place), nn.Linear(3, 3))
    book = BookKeeper(model)
    with pytest.raises(UserError, match=r"model: buffer 0\.mean was changed by a forward pass"):
        book.backward(one_a_sample(model(torch.randn(2, 3))))
    model.eval()
    book.backward(one_a_sample(model(torch.randn(2, 3))))


def test_a_buffer_is_watched_where_parts_of_a_model_are_called_alone():
    model = nn.Sequential(Running(True), nn.Linear(3, 3))
    book = BookKeeper(model)
    losses = one_a_sample(model[1](model[0](torch.randn(2, 3))))
    with pytest.raises(UserError, match=r"model: buffer 0\.mean was changed by a forward pass"):
        book.backward(losses)


def test_a_buffer_made_for_inference_is_none_that_changes():
    model = nn.Sequential(nn.Linear(3, 3), Running(True).eval())
    with torch.inference_mode():
        model[1].mean = torch.ones(3)
    book = BookKeeper(model)
    book.backward(one_a_sample(model(torch.randn(2, 3))))


def test_statistics_are_refused_also_where_the_mode_is_changed_before_the_backward_pass():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(False))
    book = BookKeeper(model)
    losses = one_a_sample(model.train()(torch.randn(2, 3)))
    model.eval()
    with pytest.raises(UserError, match=r"model: buffer 1\.\w+ was changed by a forward pass"):
        book.backward(losses)


def test_buffers_may_change_between_forward_passes():
    """Loaded, moved, or of a copy; and nothing is left of it."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).eval(), Running(True).eval())
    other = copy.deepcopy(model)
    book = BookKeeper(model)
    copied = copy.deepcopy(model).train()
    for _ in range(2):
        model.double().float()
        model.load_state_dict(other.state_dict())
        losses = one_a_sample(model(torch.randn(2, 3)))
        copied(torch.randn(2, 3))
        book.backward(losses)
    assert not book.detach()._forward_hooks
    assert not model._forward_pre_hooks


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


def test_an_unknown_clipping_function_is_refused():
    with pytest.raises(UserError, match="clipping: found 'Abadi', expected one of abadi, auto"):
        BookKeeper(nn.Linear(3, 3), clipping="Abadi")


def test_parameters_in_half_precision_are_refused():
    with pytest.raises(UserError, match=r"parameter 0\.weight: found torch\.bfloat16, in which"):
        BookKeeper(nn.Sequential(nn.Linear(3, 3).bfloat16()))


def test_parameters_that_become_half_precision_are_refused():
    model = nn.Linear(3, 3)
    book = BookKeeper(model)
    model.half()
    with pytest.raises(UserError, match=r"parameter weight: found torch\.float16, in which sums"):
        book.backward(one_a_sample(model(torch.randn(2, 3).half()).float()))


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
