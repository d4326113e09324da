"""Arithmetic that keeps the bounds that were promised."""

from __future__ import annotations

import contextlib

import torch

from dpmedbench.errors import UserError


def keep_float32() -> None:
    """Have float32 computed in float32 and not in TF32, CUDA's default for convolutions.

    Norms and clipped sums come from different kernels: rounded to the 10 bits of TF32 a sum can be
    longer than its norms say.
    """
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")


def check(precision: str, device: torch.device) -> None:
    """UserError where a GPU has no arithmetic of its own for `precision` (training.precision)."""
    if precision == "float32" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"training.precision: found {precision} on {torch.cuda.get_device_name(device)}, which "
            "computes in it by emulation only; use float32, or a GPU of compute capability 8.0 or "
            "above"
        )


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which models run in `precision`: float32 or bfloat16."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
