"""From stored images to what a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def to_input(images: np.ndarray | torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Images (n, H, W) or (n, H, W, 3) to float32 (n, 1 or 3, H, W) on `device`, white being 1.

    They are uint8, then in [0, 1], or int16 of a perturbed store, then in [-128.5, 128.5]. The
    scale is a constant (255), never a statistic of the data, which would have to be paid for in
    privacy. The bytes travel to the device before they are widened.
    """
    import torch

    images = torch.as_tensor(images)
    if images.dtype not in (torch.uint8, torch.int16) or images.ndim not in (3, 4):
        raise ValueError(
            f"found {images.dtype} {tuple(images.shape)}, expected uint8 or int16 (n, H, W[, 3])"
        )
    images = images.to(device, non_blocking=True)
    images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1).contiguous()
    return images.float() / 255
