"""The files of a dataset in a folder, a zip or a tar file, read where they lie."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dpmedbench.errors import UserError, one_line
from dpmedbench.files import replacing

# What reading raises; RuntimeError is a password, or a compression that is not known.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
)
SUFFIXES = (".zip", ".tar")
DEPTH = 4  # how many folders deep a folder is searched
LARGEST = 1 << 30  # bytes of one file that is read at once

Reader = Callable[[str], bytes]


@dataclass(frozen=True)
class Tree:
    """Files below a common top: a folder, or one inside the archive `place`.

    `sizes` are their bytes by name, `/` between the parts, sorted by name, so that the same files
    come in the same order wherever they lie. `copies` is how many more times they lie in `place`.
    An archive stays open as long as its tree is held; several threads may read at once.
    """

    place: Path
    sizes: Mapping[str, int]
    copies: int
    _top: str
    _read: Reader

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`.

        UserError where it has more than `LARGEST` bytes, and for a damaged disk or archive.
        """
        if self.sizes[name] > LARGEST:
            raise UserError(
                f"{self.place}: found {name} of {self.sizes[name]} bytes, expected at most "
                f"{LARGEST} in one file; take it out."
            )
        try:
            return self._read(self._top + name)
        except DAMAGED as error:
            raise damaged(self.place, error) from error
        except OSError as error:
            raise UserError(
                f"{self.place}: found {name} but no way to read it ({error.strerror or error}), "
                "expected a file that can be read; check its permissions and the disk."
            ) from error


def open_tree(path: Path, layout: str, expected: str) -> Tree:
    """The files whose names below a common top match the regular expression `layout`.

    `path` is the top itself, a folder up to `DEPTH` levels above the files, a zip or tar file, or
    a folder with one such file in it. What starts with a dot, `__MACOSX` and `lost+found` are
    passed over. The same names and sizes below several tops count once; UserError where they
    differ, where no name matches (`expected` says what should), for a folder that cannot be listed,
    and for a damaged or unsafe archive.
    """
    path = Path(path)
    sizes, read = _open(path)
    trees = _trees(sizes, layout)
    if not trees and path.is_dir() and (archive := _archive_in(path)):
        path = archive
        sizes, read = _open(path)
        trees = _trees(sizes, layout)
    if not trees:
        what = "no file of this dataset" if path.exists() else "no file or folder"
        raise UserError(f"{path}: found {what}, expected {expected}.")
    top = min(trees, key=lambda top: (top.count("/"), top))
    for other in trees:
        if trees[other] != trees[top]:
            raise UserError(
                f"{path}: found two versions of the dataset that differ, in "
                f"{top or 'the top folder'} and in {other}, expected one; name one of them as path."
            )
    return Tree(path, dict(sorted(trees[top].items())), len(trees) - 1, top, read)


def inside(archive: Path, name: str) -> PurePosixPath:
    """The name of an archive's member; UserError where it leads out of the archive's folder."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in name or not inner.parts:
        raise UserError(
            f"{archive}: found the member {name!r} that would leave the folder, expected plain "
            "relative names; do not trust this archive."
        )
    return inner


def not_plain(archive: Path, name: str) -> UserError:
    """What is said of a member that is neither a file nor a folder."""
    return UserError(
        f"{archive}: found the member {name!r} that is a link, a device or sparse, expected files "
        "and folders; do not trust this archive."
    )


def damaged(archive: Path, error: Exception) -> UserError:
    """What is said of an archive that raises one of `DAMAGED`."""
    return UserError(
        f"{archive}: found a damaged or locked archive ({one_line(error)}), expected a whole "
        "zip or tar file; delete it and download it again."
    )


def zip_files(file: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The files of an open zip file; folders are passed over, all else refused."""
    members = file.infolist()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise not_plain(archive, member.filename)
    return [member for member in members if not member.is_dir()]


def tar_files(file: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """The files of an open tar file, one after the other; as `zip_files` otherwise."""
    for member in file:
        if member.issparse() or not (member.isfile() or member.isdir()):
            raise not_plain(archive, member.name)
        if member.isfile():
            yield member


def write_zip(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name, sorted; the same files give the same bytes, whenever and wherever."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name in sorted(files):
            member = zipfile.ZipInfo(name)  # of 1980, as no file has a date before
            member.create_system, member.external_attr = 3, 0o644 << 16
            file.writestr(member, files[name], zipfile.ZIP_DEFLATED)


def _trees(sizes: Mapping[str, int], layout: str) -> dict[str, dict[str, int]]:
    """The sizes of the files that match, by top and by name below it."""
    pattern = re.compile(rf"((?:.*/)?)({layout})")
    trees: dict[str, dict[str, int]] = defaultdict(dict)
    for name, size in sizes.items():
        if (match := pattern.fullmatch(name)) and not any(map(_hidden, name.split("/"))):
            trees[match[1]][match[2]] = size
    return trees


def _hidden(part: str) -> bool:
    return part.startswith(".") or part in ("__MACOSX", "lost+found")


def _archive_in(folder: Path) -> Path | None:
    found = [path for path in sorted(folder.glob("[!.]*"))
             if path.name.lower().endswith(SUFFIXES) and path.is_file()]  # fmt: skip
    if len(found) > 1:
        raise UserError(
            f"{folder}: found {len(found)} archives ({', '.join(path.name for path in found)}), "
            "expected one; name it as path."
        )
    return found[0] if found else None


def _open(path: Path) -> tuple[dict[str, int], Reader]:
    """The sizes of all files below `path`, by name, and what reads one."""
    if not path.is_file():
        return _walk(path), lambda name: (path / name).read_bytes()
    try:
        return _zip(path) if zipfile.is_zipfile(path) else _tar(path)
    except DAMAGED as error:
        raise damaged(path, error) from error


def _walk(folder: Path) -> dict[str, int]:
    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return
        raise UserError(
            f"{folder}: found {error.filename} but no way to list it ({error.strerror}), expected "
            "folders that can be read; check their permissions and the disk."
        ) from error

    sizes = {}
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        below = Path(root).relative_to(folder)
        folders[:] = sorted(f for f in folders if not _hidden(f) and len(below.parts) < DEPTH)
        for name in files:
            if (path := Path(root, name)).is_file():
                sizes[(below / name).as_posix()] = path.stat().st_size
    return sizes


def _zip(path: Path) -> tuple[dict[str, int], Reader]:
    file, lock = zipfile.ZipFile(path), threading.Lock()
    members = {str(inside(path, member.filename)): member for member in zip_files(file, path)}

    def read(name: str) -> bytes:
        with lock:
            return file.read(members[name])

    return {name: member.file_size for name, member in members.items()}, read


def _tar(path: Path) -> tuple[dict[str, int], Reader]:
    with tarfile.open(path, "r:") as file:
        members = {str(inside(path, member.name)): member for member in tar_files(file, path)}
        # Python takes a broken header, or a file cut short between two members, for the end.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark behind the last member")

    def read(name: str) -> bytes:
        with path.open("rb") as handle:
            handle.seek(members[name].offset_data)
            return handle.read(members[name].size)

    return {name: member.size for name, member in members.items()}, read
