"""SIGTERM: how a scheduler, or Snakemake's user, asks a job to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


class Stopped(BaseException):
    """The process was told to end; the message says how far it came."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within the context SIGTERM raises Stopped, so that what is half done is cleaned up."""
    with _handled(_stop):
        yield


@contextlib.contextmanager
def when_asked() -> Iterator[Callable[[], bool]]:
    """Within the context the first SIGTERM only makes what is yielded return True.

    The second one raises Stopped.
    """
    asked = threading.Event()

    def note(*_) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, _stop)
        # not by print, which the signal may have interrupted
        os.write(2, b"SIGTERM: stopping after this epoch; a second one stops at once\n")

    with _handled(note):
        yield asked.is_set


def _stop(*_) -> None:
    raise Stopped("stopped by SIGTERM")


@contextlib.contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
