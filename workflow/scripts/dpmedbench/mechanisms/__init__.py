"""Mechanisms: one module an engine, each with CAPABILITIES and `build`.

An engine turns per-sample losses into an update of the weights. The training loop does

    engine.backward(losses)   # for each physical batch of the logical one
    engine.step()             # once a logical batch, empty ones included

and knows nothing else of privacy. A new engine is one module here; what it can do stands in its
CAPABILITIES, which is read without importing torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do: the (clipping, clipping_style) pairs it takes."""

    title: str
    private: bool
    combinations: frozenset[tuple[str, str]]


def names() -> list[str]:
    """Engines by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(engine: str) -> ModuleType:
    """The module of an engine."""
    return importlib.import_module(f"{__name__}.{engine}")


def capabilities(engine: str) -> Capabilities:
    """What `engine` can do."""
    return load(engine).CAPABILITIES


def check(engine: str, clipping: str, clipping_style: str) -> None:
    """Raise ValueError where the engine is unknown or cannot do the combination."""
    if engine not in names():
        raise ValueError(f"engine is {engine!r}, allowed are {names()}")
    can = capabilities(engine).combinations
    if (clipping, clipping_style) not in can:
        allowed = ", ".join(f"{function} + {style}" for function, style in sorted(can))
        raise ValueError(
            f"engine {engine} cannot do clipping {clipping} + clipping_style {clipping_style}; "
            f"allowed are {allowed}"
        )
