"""U-Net (Ronneberger et al. 2015) with group normalisation, from MONAI's blocks.

MONAI's own `BasicUNet` has a fixed depth; the blocks are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from dpmedbench.models._blocks import Contraction, up

TASK = "segmentation"


def build(
    in_channels: int,
    num_classes: int,
    features: Sequence[int] = (32, 64, 128, 256, 512),
    num_groups: int = 8,
) -> UNet:
    """A U-Net with `len(features)` levels; see `UNet`."""
    return UNet(in_channels, num_classes, features, num_groups)


class UNet(Contraction):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W).

    `features` are the channels of each level from the full resolution down; `num_groups` is the
    number of groups of every group normalisation and divides every one of them. H and W are
    free from 2**(levels - 1) pixels on.
    """

    def __init__(
        self, in_channels: int, num_classes: int, features: Sequence[int], num_groups: int
    ) -> None:
        super().__init__(in_channels, features, num_groups)
        steps = reversed(list(pairwise(features)))
        self.up = torch.nn.ModuleList(up(low, high, 1, num_groups) for high, low in steps)
        self.last = torch.nn.Conv2d(features[0], num_classes, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = self.levels(images)
        signal = levels.pop()
        for block in self.up:
            signal = block(signal, levels.pop())
        return self.last(signal)
