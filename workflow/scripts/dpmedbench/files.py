"""Outputs that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dpmedbench.errors import UserError

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
DAY = 86400.0  # seconds


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`; rename it to `path` on success.

    On an exception the temporary file is removed and `path` stays as it was. The file and its
    folder are synced to disk, so that a power cut leaves the old file or the new one. What a killed
    process left half written goes; what a living one writes at the same time stays.

    Raises:
        UserError: where the disk is full, or the folder may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if _abandoned(left):
                left.unlink(missing_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except Exception as error:
        if reason := refusal(error):
            raise UserError(
                f"{path}: found {reason!r} in writing it, expected room and the right to write; "
                "see to that and run the same command again, what is finished stays"
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more.

    The process that its name tells is gone from this machine, or has not written for a day: one of
    another machine cannot be asked.
    """
    host, _, process = temporary.stem.rpartition(".")
    try:
        if host.endswith(f".{os.uname().nodename}"):
            with contextlib.suppress(PermissionError):  # it lives, and is another user's
                os.kill(int(process), 0)
        return time.time() - temporary.stat().st_mtime > DAY
    except (ProcessLookupError, FileNotFoundError):
        return True


def refusal(error: BaseException | None) -> str | None:
    """What the system said where it would not write (a full disk, no right), else None.

    It is looked for in the texts of `error` and its causes: not every library keeps its number.
    """
    while error and not isinstance(error, UserError):
        for text in map(os.strerror, REFUSALS):
            if text in str(error):
                return text
        error = error.__cause__ or error.__context__
    return None


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON (keys in the given order; NaN refused)."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON object; UserError where the file holds none."""
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: found no JSON object ({error}), expected a whole file; delete it to "
            "have it made again"
        ) from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits; memory does not grow with the file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
