"""What is read of an epoch: by hand, on a few numbers."""

import math

import pytest
import torch

from dpmedbench.epoch_statistics import gradient_row, mean_loss


def test_the_mean_loss_is_over_samples_and_not_over_batches():
    losses = [torch.tensor([1.0, 2.0, 6.0]), torch.tensor([7.0])]
    assert mean_loss(losses, "training", 1, {}) == 4.0
    assert math.isnan(mean_loss([], "training", 1, {}))


def test_norms_are_told_by_quantiles_and_clipping_by_its_share():
    """Eleven records of two tensors: a tenth of the norms lies between each two."""
    norms, clipped = torch.arange(11.0).flip(0), torch.zeros(11, 2, dtype=torch.bool)
    clipped[:4, 0] = clipped[3:5, 1] = True
    found = gradient_row((norms, clipped))
    quantiles = {"grad_norm_p10": 1.0, "grad_norm_p50": 5.0, "grad_norm_p90": 9.0}
    assert found == pytest.approx(quantiles | {"clipped_fraction": 6 / 22})
    assert set(gradient_row(None)) == set(found)
    assert all(map(math.isnan, gradient_row(None).values()))
