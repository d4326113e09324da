"""The Book-Keeping engine held against the loop over the records."""

import torch
from per_sample_loop import assert_equal, clipped_sums, equal_limits, gradients, sums_of

from dpmedbench.bookkeeping import BookKeeper


def squares(outputs, targets):
    """A loss a sample: the squared distance to a target, over all positions."""
    return (outputs.flatten(1) - targets[:, None]).square().mean(1)


def check(model, inputs, targets, losses, mode, clipping="abadi", style="flat", r=None, size=None):
    """Hold one mode against the loop; R is the median norm, so that some are clipped."""
    if r is None:
        norms = [
            torch.stack([g.norm() for g in gradient]).norm().item()
            for gradient in gradients(model, losses, inputs, targets)
        ]
        r = sorted(norms)[len(norms) // 2] or 1.0
    thresholds = equal_limits(model, style, r)
    wanted = clipped_sums(model, losses, inputs, targets, clipping, thresholds)
    book = BookKeeper(model, mode, clipping, thresholds)
    assert_equal(sums_of(book, losses, inputs, targets, size), wanted)
    return book
