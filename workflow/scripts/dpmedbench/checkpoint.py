"""A training job that is killed at any moment goes on where it was.

The folder of a cell's state lies outside what Snakemake tracks (it deletes declared outputs before
each run). A checkpoint is taken up only by a job with the same fingerprint: the same settings,
data, splits and code.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dpmedbench.console import say
from dpmedbench.errors import first_line
from dpmedbench.files import replacing
from dpmedbench.memory import out_of_memory

if TYPE_CHECKING:
    from dpmedbench.training import Cell

FILE = "checkpoint.pt"


def fingerprint(**parts: object) -> str:
    """SHA-256 of `parts` as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(folder: Path, fingerprint: str, state: dict) -> None:
    """Write the checkpoint atomically; `state` holds tensors and plain values only."""
    with replacing(folder / FILE) as temporary, open(temporary, "wb") as file:
        torch.save({"fingerprint": fingerprint, **state}, file)  # a handle tells of a full disk


class Writer:
    """Saves checkpoints while training goes on, one at a time.

    Leaving the context waits for the last one. What went wrong in writing one is raised in the
    next call of any method, or on leaving.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future | None = None

    def save(self, state: dict) -> None:
        """Begin to write a copy of `state`, after the one before it is written."""
        self._wait()
        self._pending = self._pool.submit(save, self.folder, self.fingerprint, _held(state))

    def look(self) -> None:
        """Raise what went wrong, if that is known by now."""
        if self._pending and self._pending.done():
            self._wait()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown()
        self._wait()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def _held(value):
    """A copy of `value` on the CPU, which training does not change."""
    match value:
        case torch.Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: _held(part) for key, part in value.items()}
        case list() | tuple():
            return type(value)(map(_held, value))
    return value


def load(folder: Path, fingerprint: str) -> dict | None:
    """The state to go on from; None where there is none, or it is of another run.

    A file that is broken is named, and set aside under another name: the run starts anew.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
        # weights_only: tensors and plain values; nothing in the file is executed
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] == fingerprint:
            return state
        say(f"{path}: of other settings, data, code, torch or kind of device; starting anew")
        return None
    except Exception as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise  # of the machine, not of the file
        aside = path.with_suffix(".broken")
        path.replace(aside)
        say(
            f"{path}: found no whole checkpoint ({first_line(error)}); set aside as {aside.name}, "
            "starting anew"
        )
        return None


def state_of(cell: Cell) -> dict:
    """All that a cell needs to go on after the epoch that it has ended."""
    return {
        "network": cell.network.state_dict(),
        "average": cell.average.state_dict() if cell.average else None,
        "optimizer": cell.optimizer.state_dict(),
        "scheduler": cell.scheduler.state_dict(),
        "engine": cell.engine.state(),
        "sampler": cell.sampler.randomness.state(),
        "monitor": cell.monitor.state() if cell.monitor else None,
        "random": torch.get_rng_state(),
        "history": cell.history,
        "halvings": cell.halvings,
        "halved": cell.execution["physical_batch_size"],
        "step_seconds": cell.timer.seconds,
        "peak_memory": cell.peak.bytes,
        "first_step_seconds": cell.first_step_seconds,
        "best": cell.best,
    }


def restore(cell: Cell, state: dict) -> None:
    """Bring a cell that was just made to `state`."""
    cell.network.load_state_dict(state["network"])
    if cell.average:
        cell.average.load_state_dict(state["average"])
    cell.optimizer.load_state_dict(state["optimizer"])
    cell.scheduler.load_state_dict(state["scheduler"])
    if cell.monitor:
        cell.monitor.restore(state["monitor"])
    cell.engine.restore(state["engine"])
    cell.sampler.randomness.restore(state["sampler"])
    torch.set_rng_state(state["random"])
    cell.history = state["history"]
    if state["halved"] == cell.execution["physical_batch_size"]:
        cell.halvings = max(cell.halvings, state["halvings"])
    cell.timer.seconds = state["step_seconds"]
    cell.peak.bytes = state["peak_memory"]
    cell.first_step_seconds = state["first_step_seconds"]
    cell.best = state["best"]
