"""One cell, failed or not, in a zip file that may be sent: settings, versions and logs.

No image, no score of a patient, no id: names of patients and of their files are replaced in all
texts, paths are cut to what is of this workflow or of a package.
"""

from __future__ import annotations

import contextlib
import csv
import json
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dpmedbench import provenance, store
from dpmedbench.archives import write_zip
from dpmedbench.errors import UserError

README = """# A failed cell, for a bug report

Made by DP-MedBench: the settings of one cell, the versions of the packages, its logs. Names of
patients and of their files are replaced by <patient>, other folders by <path>. The log of a
training has losses and scores of its patients; no epsilon covers them. Read it through before you
send it.
"""
ALWAYS_A_NAME = re.compile(r"\D|.{4}")  # else it may be any number of a log
PATH = re.compile(r"(?P<quote>['\"])/[^'\"\n]*(?P=quote)|(?<![\w.>/])/[^\s'\"`:;,()\[\]{}]+")
PACKAGE = re.compile(r".*/((?:site-packages|python3\.\d+)/.*)")


def pack(
    path: Path, settings: Mapping, logs: Iterable[Path], results: Iterable[Path], ids: set[str]
) -> None:
    """Write the zip file `path`.

    Args:
        settings: of the cell.
        logs: whichever of its logs there are; UserError without any.
        results: JSON files of the cell, of which those are packed that exist.
        ids: names of patients and of their files (`names`).
    """
    files = {"README.md": README, "settings.json": json.dumps(settings, indent=2)}
    versions = provenance.manifest()
    del versions["host"], versions["time"]
    files["versions.json"] = json.dumps(versions, indent=2)
    logs = list(logs)
    if not logs:
        raise UserError(f"{path}: found no log of this cell, expected one; run the cell first")
    for log in logs:
        files[f"{log.parents[5].name}.log"] = log.read_text("utf-8", "replace")
    for result in filter(Path.exists, results):
        files[result.name] = result.read_text("utf-8", "replace")
    write_zip(path, {name: cleaned(text, ids).encode() for name, text in files.items()})


def names(data: Path, splits: Path) -> set[str]:
    """Patients and sources that the store and the split file name, as far as they can be read."""
    found: set[str] = set()
    with contextlib.suppress(UserError), store.open_store(data) as records:
        found |= {*records.patients.tolist(), *records.sources.tolist()}
    table = contextlib.suppress(OSError, csv.Error)
    with table, splits.open(encoding="utf-8-sig", errors="replace") as file:
        lines = (line for line in file if not line.startswith(("#", '"#')))
        for row in csv.DictReader(lines):
            found |= {row.get("patient"), row.get("source")}
    return found - {None, ""}


def cleaned(text: str, ids: set[str]) -> str:
    """The text without `ids`, this machine's name and its folders.

    A number of up to three digits is only taken for an id where it stands in quotes.
    """
    text = _without(text, {platform.node()} - {""}, "<host>")
    numbers = {name for name in ids if not ALWAYS_A_NAME.search(name)}
    text = _without(text, ids - numbers, "<patient>")
    text = _without(text, {f"'{number}'" for number in numbers}, "'<patient>'")
    return PATH.sub(_shortened, text)


def _without(text: str, names: set[str], instead: str) -> str:
    if not names:
        return text
    longest_first = map(re.escape, sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)", instead, text)


def _shortened(match: re.Match) -> str:
    quote = match["quote"] or ""
    path = match[0].strip(quote) if quote else match[0]
    for root in (Path.cwd(), provenance.ROOT.parents[2]):
        with contextlib.suppress(ValueError):
            return f"{quote}{Path(path).relative_to(root)}{quote}"
    package = PACKAGE.fullmatch(path)
    return f"{quote}{package[1] if package else '<path>'}{quote}"
