"""What the U-Nets share: MONAI's blocks in one style, and the way down.

The block that goes up is a 1x1 convolution, bilinear upsampling, concatenation and two 3x3
convolutions: there is no transposed convolution, which some engines for private training freeze
silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from dpmedbench.errors import UserError
from dpmedbench.monai_parts import Down, TwoConv, UpCat

ACTIVATION = ("RELU", {"inplace": False})


def group_norm(num_groups: int) -> tuple[str, dict]:
    """MONAI's words for group normalisation."""
    return "group", {"num_groups": num_groups}


def _style(num_groups: int) -> dict:
    return {"act": ACTIVATION, "norm": group_norm(num_groups), "bias": True}


def up(low: int, high: int, skips: int, num_groups: int) -> UpCat:
    """The block from `low` channels, joined with `skips` maps of `high` channels, to `high`."""
    return UpCat(2, low, skips * high, high, **_style(num_groups), upsample="nontrainable")


class Contraction(torch.nn.Module):
    """The way down: `features` channels a level, from the full resolution on, each half the last.

    H and W are free from 2**(levels - 1) pixels on.
    """

    def __init__(self, in_channels: int, features: Sequence[int], num_groups: int) -> None:
        super().__init__()
        style = _style(num_groups)
        self.first = TwoConv(2, in_channels, features[0], **style)
        self.down = torch.nn.ModuleList(
            Down(2, high, low, **style) for high, low in pairwise(features)
        )
        self.smallest_side = 2 ** len(self.down)

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images (B, in_channels, H, W) to one map (B, features[i], H / 2**i, W / 2**i) a level."""
        if min(images.shape[-2:]) < self.smallest_side:
            raise UserError(
                f"model: found images of {images.shape[-2]} x {images.shape[-1]} pixels, expected "
                f"sides of at least {self.smallest_side}; take larger images or fewer features"
            )
        levels = [self.first(images)]
        for block in self.down:
            levels.append(block(levels[-1]))
        return levels
