"""Optimisers, schedules and averages of weights, as the configuration names them."""

from __future__ import annotations

import torch


def make_optimizer(network: torch.nn.Module, options: dict) -> torch.optim.Optimizer:
    """The optimiser of `options` (the training section) over the trainable parameters."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    common = {"lr": options["learning_rate"], "weight_decay": options["weight_decay"]}
    match options["optimizer"]:
        case "adam":
            return torch.optim.Adam(parameters, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, **common)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, momentum=options["momentum"], **common)
        case "sgd":
            return torch.optim.SGD(parameters, momentum=options["momentum"], **common)
    raise ValueError(f"optimizer {options['optimizer']!r}")


def make_scheduler(
    optimizer: torch.optim.Optimizer, options: dict, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `steps` steps: constant, or a cosine that falls to 0."""
    if options["schedule"] == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


@torch.no_grad()
def average(mean: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the parameters of `mean` towards those of `network`: decay mean + (1 - decay) network.

    The buffers become the same. Not torch's AveragedModel, which waits for a GPU in each call.
    """
    torch._foreach_lerp_(list(mean.parameters()), list(network.parameters()), 1 - decay)
    for old, new in zip(mean.buffers(), network.buffers(), strict=True):
        old.copy_(new)
