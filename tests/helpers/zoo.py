"""Small networks in float64, each with images, targets and a loss, for the tests of engines.

model, inputs, targets, losses = zoo.case("unet", batch=3)
losses(model(inputs), targets)  # (batch,): one loss a sample, with graph
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from dpmedbench import models
from dpmedbench.losses import segmentation_loss

CHANNELS = 1
CLASSES = 3
SIDE = 16  # pixels

# Name of the case: the network and its options.
CASES: dict[str, tuple[str, dict]] = {
    "unet": ("unet", {"features": (4, 8), "num_groups": 2}),
    "nested_unet": ("nested_unet", {"features": (4, 6, 8), "num_groups": 2}),
    "nested_unet_deep": (
        "nested_unet",
        {"features": (4, 6, 8), "num_groups": 2, "deep_supervision": True},
    ),
    "resnet18": ("resnet18", {"features": (4, 6, 8, 8), "num_groups": 2}),
    "resnet18_frozen_batch": ("resnet18", {"features": (4, 6, 8, 8), "norm": "frozen_batch"}),
}


def networks() -> dict[str, Callable[..., tuple]]:
    """Every case by name: functions of (batch=3, seed=0), as `case`."""
    return {name: partial(case, name) for name in CASES}


def case(
    name: str, batch: int = 3, seed: int = 0
) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]:
    """(model, inputs, targets, losses): the model in training mode, all of it float64.

    `inputs` (batch, 1, 16, 16) in [0, 1]; `losses(model(inputs), targets)` is (batch,). Equal
    arguments give equal weights and data, and the first samples do not depend on `batch`.
    """
    network, options = CASES[name]
    torch.manual_seed(seed)
    model = models.build(network, CHANNELS, CLASSES, **options).double()
    random = torch.Generator().manual_seed(seed + 1)
    inputs = torch.rand(batch, CHANNELS, SIDE, SIDE, dtype=torch.float64, generator=random)
    random = torch.Generator().manual_seed(seed + 2)
    if models.task(network) == "classification":
        targets = torch.randint(CLASSES, (batch,), generator=random)
        return _spread(model), inputs, targets, _cross_entropies
    sides = (batch, SIDE, SIDE)
    targets = torch.randint(CLASSES, sides, dtype=torch.uint8, generator=random)
    return model, inputs, targets, segmentation_loss


def _cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _spread(model: torch.nn.Module) -> torch.nn.Module:
    """Give a frozen batch normalisation numbers other than those of the identity."""
    for buffer in dict(model.named_buffers()).values():
        if buffer.ndim == 1:
            buffer.uniform_(0.5, 1.5)
    return model
