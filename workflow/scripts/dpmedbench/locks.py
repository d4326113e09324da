"""Locks between processes: files held by flock, which the kernel lets go of when a process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from dpmedbench.console import say
from dpmedbench.errors import UserError

SECONDS_BETWEEN_TRIES = 1.0


@contextlib.contextmanager
def held(paths: Sequence[Path], what: str) -> Iterator[int]:
    """Hold the first free one of `paths`, waiting until there is one; yields its number.

    Who holds them stands in the files. While it waits it says so: `what` is wanted, by whom it is
    held. Holds between machines too, where their file system has locks (NFS does; Lustre if
    mounted with flock).

    Raises:
        UserError: where the file system has no locks.
    """
    said = False
    while True:
        for number, path in enumerate(paths):
            if (handle := _taken(path)) is not None:
                with handle:
                    yield number
                return
        if not said:
            holders = ", ".join(sorted({_holder(path) for path in paths}))
            say(f"waiting for {what}, held by {holders}")
            said = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _taken(path: Path) -> TextIO | None:
    """The open file of a lock that was free, with this process named in it; None: it was not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a", encoding="utf-8")  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        if isinstance(error, BlockingIOError):
            return None
        raise UserError(
            f"{path}: found a file system that gives no lock ({error.strerror}), expected one with "
            "flock; put the folder on another, or mount it with locks"
        ) from None
    handle.truncate(0)
    handle.write(_this_process())
    handle.flush()
    return handle


def _holder(path: Path) -> str:
    """Who holds a lock, as far as its file tells."""
    with contextlib.suppress(OSError):
        return path.read_text("utf-8") or "another job"
    return "another job"


def _this_process() -> str:
    name = f"process {os.getpid()} on {os.uname().nodename}"
    job = os.environ.get("SLURM_JOB_ID")
    return f"{name} (SLURM job {job})" if job else name
