"""The networks: one module each, with `TASK` and `build(in_channels, num_classes, **options)`.

`unet` and `nested_unet` segment, `resnet18` classifies. To add a network, add a module: its name
is that of the network in the configuration, its `TASK` ("segmentation" or "classification") and
the defaults of its options are literals, which are read without importing it. A module whose
name begins with an underscore is what networks share.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError

if TYPE_CHECKING:
    import torch


def names() -> list[str]:
    """Names of the networks, sorted; nothing heavy is imported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def task(name: str) -> str:
    """What the network is for: segmentation or classification; its module is not imported."""
    for node in _source(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TASK":
            return ast.literal_eval(node.value)
    raise UserError(
        f"models/{name}.py: found no constant TASK, expected 'segmentation' or 'classification'; "
        "add it below the imports"
    )


def defaults(name: str) -> dict[str, object]:
    """The options of the network and their defaults; its module is not imported."""
    build = next(
        node
        for node in _source(name).body
        if isinstance(node, ast.FunctionDef) and node.name == "build"
    )
    options = [argument.arg for argument in build.args.args[2:]]
    values = [ast.literal_eval(value) for value in build.args.defaults]
    return dict(zip(options, values, strict=True))


def check(name: str, **options: object) -> None:
    """Raise ValueError where the network is unknown or its options are, or do not go together."""
    if name not in names():
        raise ValueError(f"network is {name!r}, allowed are {names()}")
    usual = defaults(name)
    if unknown := sorted(set(options) - set(usual)):
        raise ValueError(f"network {name} has no {unknown[0]}, allowed are {', '.join(usual)}")
    chosen = usual | options
    features, groups = list(chosen.get("features") or ()), chosen.get("num_groups")
    if "features" in usual and (len(features) < 2 or min(features) < 1):
        raise ValueError(f"features are {features}, expected at least two, all positive")
    if groups is not None and chosen.get("norm") != "frozen_batch":
        odd = [width for width in features if groups < 1 or width % groups]
        if odd:
            raise ValueError(f"num_groups {groups} does not divide features {odd}")
    if chosen.get("weights") == "imagenet":
        if features != list(usual["features"]):
            raise ValueError(
                f"weights imagenet are for features {list(usual['features'])}, found {features}"
            )
    elif chosen.get("weights_file") is not None:
        raise ValueError("weights_file goes with weights imagenet, and only with it")


def build(name: str, in_channels: int, num_classes: int, **options: object) -> torch.nn.Module:
    """The network `name`, initialised from torch's global generator.

    Every network takes float images (B, `in_channels`, H, W) in [0, 1] and gives logits, and is
    fit for per-sample gradients: no batch statistics, no in-place operation, no unused parameter.

    Raises UserError for a name, an option or the value of an option that does not exist.
    """
    try:
        check(name, **options)
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    return importlib.import_module(f"{__name__}.{name}").build(in_channels, num_classes, **options)


def of(section: Mapping[str, object], in_channels: int, num_classes: int) -> torch.nn.Module:
    """The network that a section of the settings describes: its `network` and its options."""
    options = dict(section)
    return build(options.pop("network"), in_channels, num_classes, **options)


@functools.cache
def _source(name: str) -> ast.Module:
    path = Path(importlib.util.find_spec(f"{__name__}.{name}").origin)
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
