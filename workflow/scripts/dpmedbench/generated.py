"""Files that are made from others and committed: written, or checked to be up to date."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dpmedbench.errors import UserError


def main(
    files: Callable[[], Mapping[Path, str]],
    root: Path,
    target: str,
    arguments: Sequence[str] | None = None,
) -> int | str:
    """The command line of a module that makes `files`, as for `renew`; for `sys.exit`.

    It writes them or, with --check, says which differ from what it would write.
    """
    parser = argparse.ArgumentParser(description=f"Write the files of `make {target}`.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if one differs")
    check = parser.parse_args(arguments).check
    try:
        return renew(files(), root, target, check=check)
    except UserError as error:
        return str(error)


def renew(files: Mapping[Path, str], root: Path, target: str, *, check: bool) -> int:
    """Write those of `files` (path below `root` -> text) that are not as they should be.

    With `check` they are only named, with the make `target` that renews them. The exit code: 1
    where a check found some.
    """
    stale = {path: text for path, text in files.items() if not _same(path, text)}
    for path, text in stale.items():
        if check:
            print(f"{path.relative_to(root)} is not up to date; run `make {target}`")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(root)}")
    return int(check and bool(stale))


def between_marks(text: str, title: str, part: str) -> str:
    """`text` with `part` between the marks `<!-- generated: title -->` and `<!-- end -->`.

    Raises:
        ValueError: where `text` has no such marks.
    """
    start, end = f"<!-- generated: {title} -->\n", "<!-- end -->"
    before, found, rest = text.partition(start)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"found no marks {start.strip()} and {end}")
    return f"{before}{start}{part}{end}{after}"


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text
