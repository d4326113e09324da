"""Arithmetic that keeps the bounds that were promised."""

from __future__ import annotations

import torch


def keep_float32() -> None:
    """Have CUDA compute float32 in float32 and not in TF32, its default for convolutions.

    Norms and clipped sums come from different kernels: rounded to the 10 bits of TF32 a sum can be
    longer than its norms say.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
