"""Mechanisms: engine x mode x clipping function x clipping style, and what goes on top.

An engine is a module here (but for those with a leading underscore) with CAPABILITIES, which is
read without importing torch, and

    build(model, mode, clipping, thresholds, plan=None) -> engine

A private engine computes the sum of clipped gradients and nothing else; noise, sparsification
and the step are `dpsgd.training.PrivateTraining`, the same for all. An engine has

    model               what the training loop calls
    parameters          the trainable ones, in the order of model.parameters()
    thresholds          (R,) for flat clipping, one a tensor for per_layer; may be assigned
                        between steps
    masks               None, or a bool tensor for each parameter: per-sample gradients are
                        masked before they are clipped
    backward(losses)    add the clipped gradients of a physical batch; losses (B,), B >= 1
    sums()              the clipped sums since the last call, one a parameter
    norms()             per-sample gradient norms since the last call, (n, 1) or (n, L), or None
    methods()           layer -> how the norm of its gradient is got

and, where it accounts by itself, own_epsilon(steps), which the manifest records; where it keeps
something from batch to batch, state() of plain values and restore(state); where it tries ways,
trials, their number so far: a step with more of them counts neither for time nor for memory.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType

# what a private engine can be asked for: (clipping, clipping_style)
FLAT = (("abadi", "flat"), ("automatic", "flat"), ("adaptive", "flat"))
PER_LAYER = (("abadi", "per_layer"), ("automatic", "per_layer"))
TWO_PASSES = ("ghost_clip", "fast_gradient_clip")  # modes of Book-Keeping: other algorithms


@dataclass(frozen=True)
class Mode:
    """What one mode of an engine can do.

    combinations: the (clipping, clipping_style) pairs it takes.
    sparsification: whether per-sample gradients can be masked.
    bfloat16: whether the sensitivity holds when the forward pass runs in half precision.
    """

    combinations: Collection[tuple[str, str]]
    sparsification: bool = False
    bfloat16: bool = True


@dataclass(frozen=True)
class Requirement:
    """A package that no index has: the module to import, and the line that installs it."""

    module: str
    install: str


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; the first of its modes is the default.

    private: whether gradients are clipped and noised.
    local: whether training is ordinary, on images that were perturbed before.
    """

    private: bool
    modes: Mapping[str, Mode]
    requires: Requirement | None = None
    local: bool = False


@functools.cache
def names() -> tuple[str, ...]:
    """Engines by name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(engine: str) -> ModuleType:
    """The module of an engine."""
    return importlib.import_module(f"{__name__}.{engine}")


def capabilities(engine: str) -> Capabilities:
    """What `engine` can do."""
    return load(engine).CAPABILITIES


def default_mode(engine: str) -> str:
    """The mode of `engine` where none is named."""
    return next(iter(capabilities(engine).modes))


def check(
    engine: str, mode: str | None, clipping: str, clipping_style: str, sparsified: bool = False
) -> None:
    """Raise ValueError where the engine or its mode is unknown or cannot do the combination."""
    if engine not in names():
        raise ValueError(f"engine is {engine!r}, allowed are {names()}")
    modes = capabilities(engine).modes
    mode = mode or default_mode(engine)
    if mode not in modes:
        raise ValueError(f"mode is {mode!r}, allowed for engine {engine} are {list(modes)}")
    can = modes[mode].combinations
    if (clipping, clipping_style) not in can:
        allowed = ", ".join(f"{function} + {style}" for function, style in sorted(can))
        raise ValueError(
            f"engine {engine} in mode {mode} cannot do clipping {clipping} + clipping_style "
            f"{clipping_style}; allowed are {allowed}"
        )
    if sparsified and not modes[mode].sparsification:
        able = [name for name, other in modes.items() if other.sparsification]
        raise ValueError(
            f"engine {engine} in mode {mode} has no per-sample gradients to sparsify; "
            + (f"allowed modes are {able}" if able else "use engine opacus or bookkeeping")
        )


def check_precision(engine: str, mode: str | None, precision: str) -> None:
    """Raise ValueError where the sensitivity would not hold in `precision`."""
    mode = mode or default_mode(engine)
    if precision != "float32" and not capabilities(engine).modes[mode].bfloat16:
        raise ValueError(
            f"engine {engine} in mode {mode} does not keep to its thresholds in {precision}; use "
            "float32"
        )


def missing(engine: str) -> str | None:
    """Why `engine` cannot run here, None where it can."""
    requires = capabilities(engine).requires
    if requires is None or importlib.util.find_spec(requires.module):
        return None
    return f"{requires.module} is not installed; {requires.install}"
