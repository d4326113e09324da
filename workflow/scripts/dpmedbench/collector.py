"""Python's cyclic garbage collector, kept away from what stays."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Let the collector rest while packages are imported and a model is built.

    All of that stays, and is left out of later collections as well: to look through it again and
    again is a quarter of a training job's start. `collect` goes through it all the same.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


def collect() -> None:
    """Free every cycle that nothing holds any more, what was made in a pause included."""
    gc.unfreeze()
    gc.collect()
