"""Clipping functions: by what each per-sample gradient is multiplied before it is summed.

Engines import them, and engines are read without torch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STABILITY = 1e-6  # as Opacus has it, so that engines agree to the last digit
GAMMA = 0.01  # the stability constant of AUTO-S


def factors(norms: torch.Tensor, clipping: str, thresholds: Sequence[float]) -> torch.Tensor:
    """Factors of the shape of `norms`, whose product with the norm never exceeds the threshold.

    Args:
        norms: >= 0, (n, 1) over all parameters or (n, L), one for each tensor.
        clipping: "abadi", min(1, R / (norm + 1e-6)) (Abadi et al. 2016, arXiv:1607.00133, Alg. 1);
            "adaptive", the same with a threshold that moves; "automatic", R / (norm + 0.01)
            (AUTO-S, Bu et al. 2022, arXiv:2206.07136, eq. 3.2).
        thresholds: R, one for each column of `norms`.
    """
    limits = _limits(tuple(thresholds), norms.dtype, norms.device)
    if clipping == "automatic":
        return limits / (norms + GAMMA)
    return (limits / (norms + STABILITY)).clamp(max=1.0)


@functools.lru_cache(maxsize=1024)  # a copy to the device for each layer and step is felt
def _limits(thresholds: tuple, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    import torch

    # not torch.tensor(device=...), which waits for the device
    return torch.tensor(thresholds, dtype=dtype).to(device, non_blocking=True)
