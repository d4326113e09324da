"""Noise schedules: how the noise multiplier changes over the epochs, fixed before training.

Each is a function (epoch from 0, epochs, options) -> factor on the plan's noise multiplier, with
the meaning that `opacus.schedulers` gives it. Such a function, put into SCHEDULES, is all that a
new schedule takes. It sees no data, so the accountant may be fed with each step's noise.
"""

from __future__ import annotations

import inspect
import math
from numbers import Real


def constant(epoch: int, epochs: int) -> float:
    """The same noise throughout."""
    return 1.0


def exponential(epoch: int, epochs: int, *, gamma: float) -> float:
    """Multiplied by `gamma` every epoch."""
    return gamma**epoch


def step(epoch: int, epochs: int, *, gamma: float, every: int) -> float:
    """Multiplied by `gamma` after each `every` epochs."""
    return gamma ** (epoch // every)


def linear(epoch: int, epochs: int, *, final: float) -> float:
    """A straight line from 1 in the first epoch to `final` in the last."""
    return 1 + (final - 1) * epoch / max(1, epochs - 1)


def cosine(epoch: int, epochs: int, *, final: float) -> float:
    """Half a cosine from 1 in the first epoch to `final` in the last."""
    return final + (1 - final) * (1 + math.cos(math.pi * epoch / max(1, epochs - 1))) / 2


SCHEDULES = {rule.__name__: rule for rule in (constant, exponential, step, linear, cosine)}


def options(kind: str) -> dict[str, type]:
    """The options of a schedule, all needed: name -> int or float, each above 0.

    Raises:
        ValueError: where the schedule is unknown.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"kind is {kind!r}, allowed are {', '.join(SCHEDULES)}")
    parameters = inspect.signature(SCHEDULES[kind], eval_str=True).parameters.values()
    return {one.name: one.annotation for one in parameters if one.kind == one.KEYWORD_ONLY}


def factors(kind: str, epochs: int, **given: float) -> tuple[float, ...]:
    """The factor of each epoch, relative to the plan's noise multiplier.

    Args:
        kind: a name in SCHEDULES.
        epochs: >= 1.
        given: the schedule's options.

    Returns:
        `epochs` finite numbers above 0.

    Raises:
        ValueError: where the name or the options are wrong, or a factor is no finite number
            above 0; one sentence.
    """
    wanted = options(kind)
    if set(given) != set(wanted):
        raise ValueError(
            f"kind {kind} has options {sorted(given) or 'none'}, expected exactly "
            f"{sorted(wanted) or 'none'}"
        )
    for name, value in given.items():
        whole = wanted[name] is int
        if isinstance(value, bool) or not isinstance(value, int if whole else Real) or value <= 0:
            raise ValueError(
                f"{name} is {value!r}, expected a {'whole ' if whole else ''}number above 0"
            )
    found = []
    for epoch in range(epochs):
        try:
            found.append(float(SCHEDULES[kind](epoch, epochs, **given)))
        except OverflowError:
            found.append(math.inf)
        if not 0 < found[-1] < math.inf:
            raise ValueError(
                f"kind {kind} with {given} gives factor {found[-1]:g} in epoch {epoch + 1}, "
                "expected a finite number above 0"
            )
    return tuple(found)
