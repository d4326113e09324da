"""Where a result comes from: the code, the versions, the machine."""

from __future__ import annotations

import ast
import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from dpmedbench import imports

ROOT = Path(__file__).parent
PACKAGES = ("torch", "opacus", "monai", "numpy", "dp-accounting", "h5py", "pyarrow", "fastDP")
# What the configuration decides reaches a step as its params, which Snakemake compares itself.
NOT_CODE = frozenset(
    {"dpmedbench.config", "dpmedbench.cells", "dpmedbench.captions", "dpmedbench.config_files"}
)

MADE = (f"resources/{name}" for name in ("archives", "download", "phantom", "weights"))
OWN = ("results", "logs", "state", "workflow", "config", *MADE)  # of the working folder
NO_DATA = (".yaml", ".yml", ".tmp", "~", "thumbs.db", "desktop.ini")


@cache
def code_digest(script: str | Path, *plugins: str) -> str:
    """Digest of the code that a step runs: its script and all of dpmedbench that it imports.

    Modules found by name at run time (a dataset, a model, an engine, a figure) are given as
    `plugins`, so that adding one leaves the others' digests alone. Comments, docstrings and
    layout do not count; tables beside a package (.csv), which are its content, do.
    """
    pending = [_imports(Path(script)), {f"dpmedbench.{plugin}" for plugin in plugins}]
    found: set[str] = set()
    while pending:
        for module in pending.pop() - found - NOT_CODE:
            found.add(module)
            pending.append(_imports(imports.file(module)))
    digest = hashlib.sha256(_tree_digest(Path(script)).encode())
    for module in sorted(found):
        digest.update(f"{module} {_tree_digest(imports.file(module))}".encode())
        for table in _tables(imports.file(module)):
            digest.update(table.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):  # without docstrings
            node.body = [
                part
                for part in body
                if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
        elif isinstance(node, ast.JoinedStr):  # 3.12 finds an empty text behind f"{x:{y}}"
            node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    return tree


@cache
def _tree_digest(path: Path) -> str:
    return hashlib.sha256(_dump(_tree(path)).encode()).hexdigest()


def _dump(part: object) -> str:
    """A part of a tree as text, the same in every version of Python.

    Left out are empty fields, which versions add (`type_params` in 3.12) and `ast.dump` shows in
    some only, and `ctx`, which follows from the place.
    """
    if isinstance(part, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(part) if name != "ctx")
        shown = (f"{name}={_dump(value)}" for name, value in fields if value not in (None, []))
        return f"{type(part).__name__}({', '.join(shown)})"
    if isinstance(part, list):
        return f"[{', '.join(map(_dump, part))}]"
    return ascii(part)


@cache
def _imports(path: Path) -> set[str]:
    """Modules of dpmedbench that a file imports, at its top or within a function."""
    names = (name for node in ast.walk(_tree(path)) for name in imports.named(node))
    return {name for name in names if name.startswith("dpmedbench") and imports.file(name)}


def _tables(path: Path) -> list[Path]:
    """The tables beside the package whose top the file `path` is."""
    return sorted(path.parent.glob("*.csv")) if path.name == "__init__.py" else []


@cache
def files_digest(folder: str | Path) -> str | None:
    """Digest of names, sizes and times of all files below a folder; None where there is nothing.

    Of what no rule has made Snakemake follows the time only, and asks whether it is newer: that of
    a folder stays where a file is written in place or in a subfolder, and `folder`, if it is an
    archive, may be replaced by an older one. Links are followed; hidden and temporary files and
    configurations do not count, nor does what cannot be read, nor, where the folder holds the
    working folder, what the workflow has and makes there (`OWN`).
    """
    if not os.path.exists(folder):
        return None
    if os.path.isfile(folder):
        found = os.stat(folder)
        return hashlib.sha256(ascii((found.st_size, found.st_mtime_ns)).encode()).hexdigest()[:16]
    own = {os.path.realpath(name) for name in OWN}
    digest, seen = hashlib.sha256(), set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) not in own
        )
        for name in sorted(names):
            if name.startswith(".") or name.lower().endswith(NO_DATA):
                continue
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                found = os.stat(path)
                entry = os.path.relpath(path, folder), found.st_size, found.st_mtime_ns
                digest.update(ascii(entry).encode())
    return digest.hexdigest()[:16]


def manifest() -> dict:
    """Versions, commit, machine and time of this process."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES if _installed(name)},
        "commit": commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def commit() -> str | None:
    """The git commit of the code, with "-dirty" where files differ; None outside a checkout."""
    options = "--always --dirty --abbrev=40 --exclude=*"  # not the name of a tag
    above = ROOT.resolve().parents[3]  # what the checkout lies in, and is not asked
    own = os.environ | {"GIT_CEILING_DIRECTORIES": str(above)}
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), "describe", *options.split()],
            env=own,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
