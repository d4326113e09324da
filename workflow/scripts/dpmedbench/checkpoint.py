"""A training job that is killed at any moment goes on where it was.

The folder of a cell's state lies outside what Snakemake tracks (it deletes declared outputs before
each run). A checkpoint is taken up only by a job with the same fingerprint: the same settings,
data, splits and code.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from dpmedbench.errors import UserError
from dpmedbench.files import replacing

FILE = "checkpoint.pt"


def fingerprint(**parts: object) -> str:
    """SHA-256 of `parts` as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the state folder for one job; the lock ends with the process, however it ends.

    Raises:
        UserError: where another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise UserError(
                f"{folder}: another job ({handle.read().strip() or 'unknown'}) is training this "
                "cell; wait for it or end it, then run again"
            ) from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield


def save(folder: Path, fingerprint: str, state: dict) -> None:
    """Write the checkpoint atomically; `state` holds tensors and plain values only."""
    with replacing(folder / FILE) as temporary:
        torch.save({"fingerprint": fingerprint, **state}, temporary)


def load(folder: Path, fingerprint: str) -> dict | None:
    """The state to go on from; None where there is none, or it is of another run or broken."""
    try:
        # weights_only: tensors and plain values; nothing in the file is executed
        state = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return state if state.get("fingerprint") == fingerprint else None
