"""Nested U-Net (UNet++, Zhou et al. 2018) from the blocks of `unet`.

Node X^{i,j} at level i is made of all nodes before it at its level and of the one below:
`X^{i,j} = H([X^{i,0}, ..., X^{i,j-1}, U(X^{i+1,j-1})])` (their equation 1), where X^{i,0} is the
way down. MONAI's own `BasicUNetPlusPlus` has a fixed depth, and heads that nothing trains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpmedbench.models._blocks import Contraction, up

TASK = "segmentation"


def build(
    in_channels: int,
    num_classes: int,
    features: Sequence[int] = (32, 64, 128, 256, 512),
    num_groups: int = 8,
    deep_supervision: bool = False,
) -> NestedUNet:
    """A nested U-Net with `len(features)` levels; see `NestedUNet`."""
    return NestedUNet(in_channels, num_classes, features, num_groups, deep_supervision)


class NestedUNet(Contraction):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W).

    With `deep_supervision` every node X^{0,1}, ..., X^{0,L} of the full resolution has a head of
    its own, and in training the logits are (B, L, num_classes, H, W), the last of them what
    evaluation gives (the network is not pruned). The rest is as in `UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        features: Sequence[int],
        num_groups: int,
        deep_supervision: bool,
    ) -> None:
        super().__init__(in_channels, features, num_groups)
        depth = len(features) - 1
        self.deep_supervision = deep_supervision
        # up[j - 1][i] makes X^{i,j}
        self.up = torch.nn.ModuleList(
            torch.nn.ModuleList(
                up(features[i + 1], features[i], j, num_groups) for i in range(depth + 1 - j)
            )
            for j in range(1, depth + 1)
        )
        self.heads = torch.nn.ModuleList(
            torch.nn.Conv2d(features[0], num_classes, kernel_size=1)
            for _ in range(depth if deep_supervision else 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = [[level] for level in self.levels(images)]
        for column in self.up:
            # from the top, so that the row below still ends in the column before
            for row, below, block in zip(rows, rows[1:], column, strict=False):
                row.append(block(below[-1], torch.cat(row, dim=1)))
        nodes = rows[0][1:]
        if self.deep_supervision and self.training:
            heads = zip(self.heads, nodes, strict=True)
            return torch.stack([head(node) for head, node in heads], dim=1)
        return self.heads[-1](nodes[-1])
