"""What is read of an epoch at its end: the mean loss, and the norms of the gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dpmedbench.errors import UserError

QUANTILES = {"grad_norm_p10": 0.1, "grad_norm_p50": 0.5, "grad_norm_p90": 0.9}


def mean_loss(losses: Sequence[torch.Tensor], part: str, epoch: int, options: Mapping) -> float:
    """The mean of `losses`, each (B,); NaN where there is none.

    Raises:
        UserError: where it is not finite; `options` (the training section) tells what to change.
    """
    if not losses:
        return math.nan
    loss = torch.cat(losses).double().mean().item()
    if not math.isfinite(loss):
        half = options["precision"] != "float32"
        raise UserError(
            f"epoch {epoch}: found a {part} loss of {loss}, expected a finite one; lower the "
            f"learning_rate (now {options['learning_rate']:g})" + " or use precision float32" * half
        )
    return loss


def gradient_row(found: tuple[torch.Tensor, torch.Tensor] | None) -> dict[str, float]:
    """Quantiles of the per-sample gradient norms (n,), and the share that was clipped; NaN if None.

    `found` is as `PrivateTraining.gradient_norms` gives it.
    """
    if found is None:
        return dict.fromkeys((*QUANTILES, "clipped_fraction"), math.nan)
    norms, clipped = found
    quantiles = np.quantile(norms.cpu().numpy(), list(QUANTILES.values())).tolist()
    return dict(zip(QUANTILES, quantiles, strict=True)) | {
        "clipped_fraction": clipped.float().mean().item()
    }
