"""A training job that is killed at any moment goes on where it was.

The folder of a cell's state lies outside what Snakemake tracks (it deletes declared outputs before
each run). A checkpoint is taken up only by a job with the same fingerprint: the same data, splits,
code and settings, but for those that change no weights (`planning.decisive`).
"""

from __future__ import annotations

import hashlib
import json
import time
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
    from dpmedbench.training import Trainer

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
        self._saved = time.monotonic()

    def due(self, seconds: float) -> bool:
        """Whether the last checkpoint was begun `seconds` ago; raises what went wrong with it."""
        if self._pending and self._pending.done():
            self._wait()
        return time.monotonic() - self._saved >= seconds

    def save(self, state: dict) -> None:
        """Begin to write a copy of `state`, after the one before it is written."""
        self._wait()
        self._saved = time.monotonic()
        self._pending = self._pool.submit(save, self.folder, self.fingerprint, _held(state))

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


def state_of(trainer: Trainer) -> dict:
    """All that a cell needs to go on after the epoch that it has ended."""
    return {
        "network": trainer.network.state_dict(),
        "average": trainer.average.state_dict() if trainer.average else None,
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "engine": trainer.engine.state(),
        "sampler": trainer.sampler.randomness.state(),
        "monitor": trainer.monitor.state() if trainer.monitor else None,
        "random": torch.get_rng_state(),
        "history": trainer.history,
        "place": trainer.place,
        "halvings": trainer.halvings,
        "configured_batch": trainer.execution["physical_batch_size"],
        "step_seconds": trainer.timer.seconds,
        "peak_memory": trainer.peak.bytes,
        "first_step_seconds": trainer.first_step_seconds,
        "best": trainer.best,
    }


def restore(trainer: Trainer, state: dict) -> None:
    """Bring a cell that was just made to `state`."""
    trainer.network.load_state_dict(state["network"])
    if trainer.average:
        trainer.average.load_state_dict(state["average"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scheduler.load_state_dict(state["scheduler"])
    if trainer.monitor:
        trainer.monitor.restore(state["monitor"])
    trainer.engine.restore(state["engine"])
    trainer.sampler.randomness.restore(state["sampler"])
    torch.set_rng_state(state["random"])
    trainer.history = state["history"]
    before, here = state["place"]["device"], trainer.place["device"]
    if len(trainer.history) == trainer.options["epochs"]:  # nothing is left to train here
        trainer.place = state["place"]
    elif before != here:  # its times are of neither
        went_on = f"; from epoch {len(trainer.history) + 1}: {here}"
        trainer.place["device"] = before + went_on * (not before.endswith(f": {here}"))
    if state["configured_batch"] == trainer.execution["physical_batch_size"]:
        trainer.halvings = max(trainer.halvings, state["halvings"])
    trainer.timer.seconds = state["step_seconds"]
    trainer.peak.bytes = state["peak_memory"]
    trainer.first_step_seconds = state["first_step_seconds"]
    trainer.best = state["best"]
