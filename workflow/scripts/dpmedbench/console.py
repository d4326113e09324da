"""Progress for people: a live bar on a terminal, plain lines in a pipe, few lines in a file."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
LINES_IN_A_FILE = 10

_log: TextIO | None = None


@contextlib.contextmanager
def logged(path: str | Path) -> Iterator[TextIO]:
    """Within the context every line said goes to the file `path` too; yields that file.

    What the disk has no room for is left out of it.
    """
    global _log
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"")
    # to append to: a job whose Snakemake was killed may still write to it
    _log = open(path, "a", encoding="utf-8")  # noqa: SIM115
    try:
        yield _log
    finally:
        with contextlib.suppress(OSError):  # what was not flushed for lack of room
            _log.close()
        _log = None


def say(line: str) -> None:
    """Print one line to standard error, and to the log, at once."""
    print(line, file=sys.stderr, flush=True)
    _note(line)


def _note(line: str) -> None:
    """Add a line to the log."""
    with contextlib.suppress(OSError):
        if _log:
            print(line, file=_log, flush=True)


class Progress:
    """How far a long piece of work is, on standard error.

    Use as a context manager; `update` may be called as often as one likes. `done` of the total
    were done before.
    """

    def __init__(self, title: str, total: int | None = None, done: int = 0):
        self.title = title
        self.total = total
        self.started = self._last = time.monotonic()
        self.done = self._before = done
        self._text = ""
        self._bar = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console
            from rich.table import Column

            # on a narrow terminal the words give way, not the numbers
            count = Column(no_wrap=True, min_width=len(f"{self.total}/{self.total}"))
            self._bar = progress.Progress(
                "{task.description}",
                progress.BarColumn(bar_width=10),
                progress.MofNCompleteColumn(table_column=count),
                progress.TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
                "{task.fields[text]}",
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, text=""
            )
            self._bar.start()
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if self._bar:
            self._bar.stop()
        if kind is None:
            seconds = time.monotonic() - self.started
            say(f"{self.title}: {self.done} done in {_duration(seconds)}{_after(self._text)}")

    def update(self, done: int, text: str = "") -> None:
        """`done` of the total are done; `text` says more of it."""
        step, self.done, self._text = done - self.done, done, text
        of = f"/{self.total}, {self._left()} left" if self.total else ""
        line = f"{self.title}: {done}{of}{_after(text)}"
        if self._bar:
            self._bar.update(self._task, completed=done, text=text)
        elif self._due(step):
            self._last = time.monotonic()
            print(line, file=sys.stderr, flush=True)
        _note(line)

    def _due(self, step: int) -> bool:
        if self.total and self.done >= self.total:
            return False  # the closing line says it
        if self.total and _is_file(sys.stderr):
            share = max(1, self.total // LINES_IN_A_FILE)
            return self.done // share > (self.done - step) // share
        return time.monotonic() - self._last > SECONDS_BETWEEN_LINES

    def _left(self) -> str:
        elapsed = time.monotonic() - self.started
        each = elapsed / max(1, self.done - self._before)
        return _duration(each * (self.total - self.done))


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while showing how many are done and the time left."""
    with Progress(title, total) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(done)


def _is_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # a stream without a descriptor
        return False


def _after(text: str) -> str:
    return f"; {text}" if text else ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
