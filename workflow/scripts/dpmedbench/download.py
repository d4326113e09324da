"""Raw data from the net: resumed, checked and unpacked into a folder that is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin

from dpmedbench import locks
from dpmedbench.archives import DAMAGED, damaged, inside, tar_files, zip_files
from dpmedbench.console import say, track
from dpmedbench.datasets.base import Download
from dpmedbench.errors import UserError
from dpmedbench.files import sha256

if TYPE_CHECKING:
    import requests

MEBIBYTE = 1 << 20
SINGLE = (".mat",)  # a dataset of one file that is no archive
ATTEMPTS = 5
PAUSE = 2.0  # seconds before the second attempt, doubled for each one after it
TIMEOUT = (15, 60)  # seconds to connect, and without a byte
# Most that an archive may unpack to: what is small is never a bomb, what is packed well neither.
UNPACKED, TIMES = 10 << 30, 100


def fetch(download: Download, folder: Path) -> Path:
    """Download into `folder` and return the file's path.

    The bytes go to `<filename>.part`; what is there already is kept if the server can go on from
    it. A dropped connection or a busy server is tried again, `ATTEMPTS` times in a row without
    progress. Size and SHA-256 are checked where known; bytes that fail are removed, so that the
    next run starts clean. A lock beside the file lets one process at a time do it: two datasets may
    be of one archive. UserError for everything else that stands in the way, and for a server that
    leads from https to http.
    """
    path = Path(folder) / download.filename
    if path.is_file():
        _check(download, path)
        return path
    part = path.with_name(path.name + ".part")
    try:
        with _alone(path):
            if path.is_file():  # another dataset was first, and checked it
                return path
            _complete(download, part)
            _check(download, part)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(part, path)
    except OSError as error:
        raise _disk_error(error, part) from error
    return path


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar file into the new `folder`, or copy a single one, and return the folder.

    It is unpacked beside the folder and renamed, so that the folder is whole or absent; an empty
    one may be there already. What a killed process left half unpacked goes. UserError for a damaged
    archive, for a member that is no plain file or would leave the folder, and for more bytes than
    any archive of its size should hold.
    """
    archive, folder = Path(archive), Path(folder)
    if _filled(folder):
        raise UserError(f"{folder}: found a folder with files in it, expected none; remove it.")
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        with _alone(folder):
            if _filled(folder):  # another process was first
                return folder
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                _extract(archive, temporary)
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except DAMAGED as error:
        raise damaged(archive, error) from error
    except OSError as error:
        raise _disk_error(error, folder) from error
    return folder


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _alone(path: Path) -> contextlib.AbstractContextManager:
    """Hold the lock of what is made at `path`, a file beside it that stays."""
    return locks.held([path.with_name(f".{path.name}.lock")], str(path))


def _extract(archive: Path, folder: Path) -> None:
    """Write every file of an archive below `folder`."""
    left = most = max(UNPACKED, TIMES * archive.stat().st_size)
    for name, content in track(_members(archive), f"unpacking {archive.name}"):
        target = folder / inside(archive, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as handle:
            while chunk := content.read(MEBIBYTE):
                if (left := left - len(chunk)) < 0:
                    raise UserError(
                        f"{archive}: found more than {most} bytes in it, expected at most "
                        f"{TIMES} times its own size; do not trust this archive."
                    )
                handle.write(chunk)


def _complete(download: Download, part: Path) -> None:
    """Make `part` as long as the server says; the connection may drop in between."""
    import requests

    dropped = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        _Busy,
    )
    failures, furthest = 0, _size(part)
    while (have := _size(part)) != download.size or not have:
        try:
            _receive(download, part, have)
            return
        except dropped as error:
            failures = failures + 1 if _size(part) <= furthest else 1
            furthest = max(furthest, _size(part))
            if failures >= ATTEMPTS:
                raise UserError(
                    f"{download.url}: found no answer in {ATTEMPTS} attempts ({_reason(error)}), "
                    f"expected the file; check the network and run again ({_size(part)} bytes so "
                    "far are kept)."
                ) from error
            say(f"{download.url}: {_reason(error)}; trying again.")
            time.sleep(PAUSE * 2 ** (failures - 1))
        except requests.RequestException as error:
            raise UserError(
                f"{download.url}: found {_reason(error)}, expected the file; check the address."
            ) from error


def _receive(download: Download, part: Path, have: int) -> None:
    """One request: append to `part` if the server goes on from `have` bytes, else start over."""
    import requests

    # No content coding: positions and sizes are those of the file itself.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(
        download.url,
        headers=headers,
        stream=True,
        timeout=TIMEOUT,
        hooks={"response": _stay_secure},
    ) as answer:
        code = answer.status_code
        span = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", "")
        )
        if code == 416 and have:
            if span and span[2] == str(have):
                return  # nothing was missing
            part.unlink()
            raise _Busy("the server has another file than the one begun; starting over")
        if code == 429 or code >= 500:
            raise _Busy(f"HTTP status {code} {answer.reason}")
        if code not in (200, 206):
            raise UserError(
                f"{download.url}: found HTTP status {code} {answer.reason}, expected the file; "
                f"download it by hand to {part.with_suffix('')}."
            )
        goes_on = code == 206 and span and span[1] == str(have)
        if code == 206 and not goes_on:
            part.unlink()
            raise _Busy("the server answered with another range; starting over")
        start = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else download.size
        mebibytes = -(-(total - start) // MEBIBYTE) if total else None
        with part.open("ab" if goes_on else "wb") as handle:
            for chunk in track(
                answer.iter_content(MEBIBYTE), f"{download.filename} (MiB)", mebibytes
            ):
                handle.write(chunk)
                handle.flush()


def _stay_secure(answer: requests.Response, **_: object) -> None:
    """Called before a redirect is followed; UserError where it leads from https to http."""
    target = urljoin(answer.url, answer.headers.get("Location", ""))
    if answer.url.startswith("https:") and not target.startswith("https:"):
        raise UserError(
            f"{answer.url}: found a redirect to {target}, which is not encrypted, expected "
            "https; download the file by hand."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check(download: Download, path: Path) -> None:
    size = path.stat().st_size
    if download.size is not None and size != download.size:
        problem = f"{size} bytes, expected {download.size}"
    elif download.sha256 is not None and (digest := sha256(path)) != download.sha256.lower():
        problem = f"SHA-256 {digest}, expected {download.sha256.lower()}"
    else:
        return
    if path.suffix == ".part":
        path.unlink()
        raise UserError(
            f"{download.url}: found {problem}; the download was removed, run again, and if it "
            "comes back the file at the source has changed."
        )
    raise UserError(f"{path}: found {problem}; delete the file and run again.")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every file in the archive; folders are skipped, all else refused.

    A dataset of one file is its own member.
    """
    if archive.suffix in SINGLE:
        with archive.open("rb") as content:
            yield archive.name, content
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for member in zip_files(file, archive):
                with file.open(member) as content:
                    yield member.filename, content
    else:
        with tarfile.open(archive, "r:*") as file:
            for member in tar_files(file, archive):
                yield member.name, file.extractfile(member)
            while file.fileobj.read(MEBIBYTE):  # to the checksum at the end
                pass


def _disk_error(error: OSError, path: Path) -> UserError:
    if error.errno == errno.ENOSPC:
        return UserError(
            f"{path}: found the disk full, expected room for it; free some, run again."
        )
    return UserError(
        f"{error.filename or path}: found {error.strerror or error}, expected to read or write it."
    )


def _reason(error: Exception) -> str:
    """The innermost reason of an error that wraps others, in a few words."""
    text = str(error)
    for sign in ("Name or service not known", "Temporary failure in name resolution",
                 "Connection refused", "Network is unreachable", "timed out"):  # fmt: skip
        if sign.lower() in text.lower():
            return sign
    return text.splitlines()[0].rstrip(": ")[:120] if text else type(error).__name__


class _Busy(Exception):
    """The server may well answer differently in a moment."""
