"""ResNet-18 (He et al. 2016) without batch statistics, from MONAI's residual block.

The layers are named and laid out as in torchvision, whose ImageNet weights fit. MONAI's own
`ResNet` keeps batch normalisation in its blocks whatever norm is asked for, and its block adds
in place, which per-sample hooks do not survive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dpmedbench import pretrained
from dpmedbench.errors import UserError
from dpmedbench.models._blocks import ACTIVATION, group_norm
from dpmedbench.monai_parts import Norm, ResNetBlock, get_norm_layer

TASK = "classification"

# Mean and standard deviation of ImageNet's red, green and blue in [0, 1]: constants published
# with the weights, not statistics of the data at hand.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def build(
    in_channels: int,
    num_classes: int,
    features: Sequence[int] = (64, 128, 256, 512),
    num_groups: int = 8,
    norm: str = "group",
    weights: str = "none",
    weights_file: str | None = None,
) -> ResNet:
    """A ResNet of two blocks a stage; see `ResNet`.

    `norm` is "group" (`num_groups` groups) or "frozen_batch". `weights` is "none", for random
    ones, or "imagenet", read from `weights_file` (None: `pretrained.PATH`); see `pretrained.load`.
    """
    norms = {"group": group_norm(num_groups), "frozen_batch": "frozen_batch"}
    for name, found, allowed in (("norm", norm, norms), ("weights", weights, ("none", "imagenet"))):
        if found not in allowed:
            raise UserError(f"model: {name} is {found!r}, allowed are {', '.join(allowed)}")
    network = ResNet(in_channels, num_classes, features, norms[norm])
    if weights == "imagenet":
        pretrained.load(network, weights_file or pretrained.PATH)
    return network


class FrozenBatchNorm(torch.nn.Module):
    """Batch normalisation with fixed statistics, scale and shift, in training too.

    (B, C, ...) to the same shape. Nothing in it is trained; all is the identity until weights are
    loaded.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(
            signal, self.running_mean, self.running_var, self.weight, self.bias
        )


Norm.add_factory_class("frozen_batch", FrozenBatchNorm)


class Block(ResNetBlock):
    """MONAI's block, the addition not in place."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        residual = signal if self.downsample is None else self.downsample(signal)
        signal = self.act(self.bn1(self.conv1(signal)))
        return self.act(self.bn2(self.conv2(signal)) + residual)


class ResNet(torch.nn.Module):
    """Images (B, in_channels, H, W) in [0, 1] to logits (B, num_classes), sides from 1 pixel on.

    `features` are the channels of each stage of two blocks, four of them in ResNet-18; all but
    the first stage halve the sides. `norm` is MONAI's word for the normalisation. Images are
    normalised as for ImageNet, by constants, whatever the weights; grey ones by the mean over
    the colours.
    """

    def __init__(
        self, in_channels: int, num_classes: int, features: Sequence[int], norm: str | tuple
    ) -> None:
        super().__init__()
        colours = torch.tensor([MEAN, STD])
        if in_channels != 3:
            colours = colours.mean(dim=1, keepdim=True)
        mean, std = colours[:, :, None, None]
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.conv1 = torch.nn.Conv2d(in_channels, features[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = get_norm_layer(norm, spatial_dims=2, channels=features[0])
        self.relu = torch.nn.ReLU()
        self.maxpool = torch.nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = len(features)
        channels = features[0]
        for stage, width in enumerate(features, start=1):
            self.add_module(f"layer{stage}", _stage(channels, width, 1 if stage == 1 else 2, norm))
            channels = width
        self.fc = torch.nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        signal = (images - self.mean) / self.std
        signal = self.maxpool(self.relu(self.bn1(self.conv1(signal))))
        for stage in range(1, self.stages + 1):
            signal = self.get_submodule(f"layer{stage}")(signal)
        return self.fc(signal.mean(dim=(2, 3)))


def _stage(channels: int, width: int, stride: int, norm: str | tuple) -> torch.nn.Sequential:
    """Two blocks; the first goes from `channels` to `width` with `stride`."""
    downsample = None
    if stride != 1:
        downsample = torch.nn.Sequential(
            torch.nn.Conv2d(channels, width, 1, stride=stride, bias=False),
            get_norm_layer(norm, spatial_dims=2, channels=width),
        )
    return torch.nn.Sequential(
        Block(channels, width, 2, stride, downsample, ACTIVATION, norm),
        Block(width, width, 2, act=ACTIVATION, norm=norm),
    )
