"""U-Net (Ronneberger et al. 2015) with group normalisation, from MONAI's blocks.

MONAI's own `BasicUNet` has a fixed depth; the blocks are the same. The block that goes up is a
1x1 convolution, bilinear upsampling, concatenation and two 3x3 convolutions: there is no
transposed convolution, which some engines for private training freeze silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat

from dpmedbench.errors import UserError


def build(
    in_channels: int,
    num_classes: int,
    features: Sequence[int] = (32, 64, 128, 256, 512),
    num_groups: int = 8,
) -> UNet:
    """A U-Net with `len(features)` levels; see `UNet`."""
    return UNet(in_channels, num_classes, features, num_groups)


class UNet(torch.nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W).

    `features` are the channels of each level from the full resolution down; `num_groups` is the
    number of groups of every group normalisation and divides every one of them. H and W are
    free from 2**(levels - 1) pixels on.
    """

    def __init__(
        self, in_channels: int, num_classes: int, features: Sequence[int], num_groups: int
    ) -> None:
        super().__init__()
        features = tuple(features)
        if len(features) < 2 or min(features) < 1 or num_groups < 1:
            raise UserError(
                f"model unet: found features {list(features)} and num_groups {num_groups}, "
                "expected at least two features and all numbers positive"
            )
        if odd := [width for width in features if width % num_groups]:
            raise UserError(
                f"model unet: found num_groups {num_groups} with features {list(features)}, "
                f"expected a divisor of every one; {odd[0]} is no multiple of {num_groups}"
            )
        style = {
            "act": ("RELU", {"inplace": False}),
            "norm": ("group", {"num_groups": num_groups}),
            "bias": True,
        }
        steps = list(pairwise(features))
        self.first = TwoConv(2, in_channels, features[0], **style)
        self.down = torch.nn.ModuleList(Down(2, high, low, **style) for high, low in steps)
        self.up = torch.nn.ModuleList(
            UpCat(2, low, high, high, **style, upsample="nontrainable")
            for high, low in reversed(steps)
        )
        self.last = torch.nn.Conv2d(features[0], num_classes, kernel_size=1)
        self.smallest_side = 2 ** len(steps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if min(images.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"model unet: found images of {images.shape[-2]} x {images.shape[-1]} pixels, "
                f"expected sides of at least {self.smallest_side}; take larger images or fewer "
                "features"
            )
        levels = [self.first(images)]
        for block in self.down:
            levels.append(block(levels[-1]))
        signal = levels.pop()
        for block in self.up:
            signal = block(signal, levels.pop())
        return self.last(signal)
