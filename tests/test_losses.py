"""The loss of each sample: values, independence of samples, ungraded pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss

from dpmedbench.losses import segmentation_loss

CLASSES = 4


def sample(size: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, CLASSES, 6, 5, dtype=torch.float64, generator=made)
    return logits, torch.randint(0, CLASSES, (size, 6, 5), dtype=torch.uint8, generator=made)


def test_equals_torch_and_monai_where_everything_is_graded() -> None:
    logits, target = sample()
    entropy = torch.nn.functional.cross_entropy(logits, target.long(), reduction="none")
    dice = DiceLoss(softmax=True, to_onehot_y=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)
    expected = entropy.mean((1, 2)) + dice(logits, target[:, None].long()).mean((1, 2, 3))
    torch.testing.assert_close(segmentation_loss(logits, target), expected)


def test_ungraded_pixels_equal_an_image_without_them() -> None:
    logits, target = sample()
    cut = target.clone()
    cut[:, :, 3:] = 255
    found = segmentation_loss(logits, cut)
    torch.testing.assert_close(found, segmentation_loss(logits[..., :3], target[..., :3]))
    assert not torch.allclose(found, segmentation_loss(logits, target))


def test_ungraded_pixels_have_no_gradient() -> None:
    logits, target = sample()
    target[:, 2] = 255
    logits.requires_grad_()
    segmentation_loss(logits, target).sum().backward()
    assert not logits.grad[:, :, 2].any()
    assert logits.grad[:, :, 3].abs().min() > 0


def test_values_by_hand() -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.uint8)
    uniform = segmentation_loss(torch.zeros(1, 2, 2, 2), target).item()
    # Class 0: p = 1/2 on 4 of 4 pixels; class 1: absent, with a mass of 2 pixels.
    soft_dice = (1 - (2 * 2 + 1) / (2 + 4 + 1) + 1 - 1 / (2 + 1)) / 2
    assert uniform == pytest.approx(math.log(2) + soft_dice)
    sure = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert segmentation_loss(sure, target).item() == pytest.approx(0, abs=1e-6)
    # Wrong everywhere: 100 nats; class 0 scores 1 - 1/5, class 1 too.
    assert segmentation_loss(-sure, target).item() == pytest.approx(100 + 0.8)


def test_a_sample_without_graded_pixel_costs_nothing() -> None:
    logits, target = sample()
    target[1] = 255
    logits.requires_grad_()
    losses = segmentation_loss(logits, target)
    losses.sum().backward()
    assert losses[1] == 0
    assert not logits.grad[1].any()
    assert torch.isfinite(logits.grad).all()
    assert losses[0] > 0
    assert losses[2] > 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(0, 4), ignored=st.floats(0, 1))
def test_samples_are_separable(seed: int, size: int, ignored: float) -> None:
    logits, target = sample(size, seed)
    made = torch.Generator().manual_seed(seed)
    target[torch.rand(target.shape, generator=made) < ignored] = 255
    together = segmentation_loss(logits, target)
    assert together.shape == (size,)
    assert (together >= 0).all()
    for one in range(size):
        alone = segmentation_loss(logits[one : one + 1], target[one : one + 1])
        torch.testing.assert_close(together[one], alone[0])


def test_autocast_and_half_precision_give_float32() -> None:
    logits, target = sample()
    exact = segmentation_loss(logits, target).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = segmentation_loss(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(segmentation_loss(logits.float(), target), exact)


def test_large_logits_stay_finite() -> None:
    logits, target = sample()
    logits = (1e4 * logits).float().requires_grad_()
    segmentation_loss(logits, target).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_vmap_gives_the_same_gradients() -> None:
    logits, target = sample()
    loss = lambda one, truth: segmentation_loss(one[None], truth[None])[0]  # noqa: E731
    found = torch.func.vmap(torch.func.grad(loss))(logits, target)
    logits.requires_grad_()
    segmentation_loss(logits, target).sum().backward()
    torch.testing.assert_close(found, logits.grad)
