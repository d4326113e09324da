"""The models: one file each, with a function `build(in_channels, num_classes, **options)`.

To add a model, add a file here: its name is the name of the model in the configuration.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError

if TYPE_CHECKING:
    import torch


def names() -> list[str]:
    """Names of the models, sorted; nothing heavy is imported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def build(name: str, in_channels: int, num_classes: int, **options: object) -> torch.nn.Module:
    """The model `name`, initialised from torch's global generator.

    Every model takes float images (B, `in_channels`, H, W) in [0, 1] and gives logits, and is
    fit for per-sample gradients: no batch statistics, no in-place operation, no unused parameter.

    Raises UserError for a name, an option or the value of an option that does not exist.
    """
    if name not in names():
        raise UserError(f"model: found {name!r}, expected one of {', '.join(names())}")
    make = importlib.import_module(f"{__name__}.{name}").build
    known = list(inspect.signature(make).parameters)[2:]
    if unknown := sorted(set(options) - set(known)):
        raise UserError(
            f"model {name}: found the option {unknown[0]!r}, expected {' or '.join(known)}"
        )
    return make(in_channels, num_classes, **options)
