"""The training loss, one value per sample: private training clips the gradient of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpmedbench.datasets.base import IGNORE
from dpmedbench.monai_parts import DiceLoss

SMOOTH = 1.0  # pixels, in numerator and denominator of the soft Dice


def segmentation_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss of each sample.

    `logits` (B, C, H, W) of any float type; `target` (B, H, W) with classes 0..C-1 and 255 where
    not graded. Returns (B,) in float32 (float64 for float64 logits), also under autocast. Logits
    (B, heads, C, H, W) of deep supervision have the mean of the losses of the heads.

    Cross-entropy is the mean over the graded pixels, in nats: [0, inf), log C for uniform logits.
    Soft Dice loss is the mean over the C classes, background included, of
    `1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)` over the graded pixels (Milletari et al. 2016,
    plain denominators): [0, 1). The one pixel of smoothing gives a class that is absent and not
    predicted the loss 0, and one that is absent and predicted with a mass of m pixels m / (m + 1).

    No term couples samples. A sample without any graded pixel has loss 0 and gradient 0.
    """
    if logits.ndim == 5:
        heads = [segmentation_loss(head, target) for head in logits.unbind(1)]
        return torch.stack(heads, dim=1).mean(1)
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    log_p = logits.log_softmax(1)
    graded = (target != IGNORE).unsqueeze(1)
    classes = torch.arange(logits.shape[1], device=target.device).view(1, -1, 1, 1)
    truth = (target.unsqueeze(1) == classes).to(log_p.dtype)  # all zero where not graded

    pixels = graded.sum((1, 2, 3)).clamp(min=1)
    cross_entropy = -(truth * log_p).sum((1, 2, 3)) / pixels
    # MONAI's own masking comes before its softmax, hence probabilities and masks made here.
    dice = DiceLoss(reduction="none", smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    return cross_entropy + dice(log_p.exp() * graded, truth).mean((1, 2, 3))


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: Sequence[float] | None = None
) -> torch.Tensor:
    """Cross-entropy of each sample, in nats, times the weight of its label.

    `logits` (B, C) of any float type, `labels` (B,) of 0..C-1, `weights` (C,). Returns (B,) in
    float32 (float64 for float64 logits), also under autocast: [0, inf), log C for uniform logits.

    Weights are not divided by their sum over the batch, which would couple the samples.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    weight = None
    if weights is not None:  # not logits.new_tensor, which waits for the device
        weight = torch.tensor(weights, dtype=logits.dtype).to(logits.device, non_blocking=True)
    return torch.nn.functional.cross_entropy(logits, labels.long(), weight, reduction="none")
