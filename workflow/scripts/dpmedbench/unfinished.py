"""What failed in a run, what is missing of a study that did not get to its end, and why.

Nothing here imports anything heavy: the Snakefile reads it on every call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dpmedbench.errors import UserError
from dpmedbench.files import read_json, sha256

FILES = {
    "train": (
        "manifest.json",
        "model.safetensors",
        "history.parquet",
        "privacy.json",
        "cost.json",
    ),
    "predict": ("scores.parquet",),
}
PREDICTIONS = {"segmentation": "masks.h5", "classification": "predictions.parquet"}
LONGEST = 300  # characters of a log's line
MOST = 10  # failures that are named


def why(
    folder: Path,
    task: str,
    settings: Mapping,
    code: str,
    logs: Mapping[str, Path],
    data: Sequence[Path],
    splits: Path,
) -> str | None:
    """Why a cell has no results, in words; None where it has.

    A cell that was trained with other settings, code or data than now asked for has none: a run
    that ends trains it again.

    Args:
        folder: of its results.
        task: of its dataset.
        settings: what it is to be trained with (`cells.settings`).
        code: digest of the code that is to train it.
        logs: its log of each step, "train" and "predict".
        data: the files it is trained on; its weights are not of one that is newer, or was touched.
        splits: of its dataset; a newer file counts where its content is another.
    """
    if any(not (folder / name).exists() for name in FILES["train"]):
        return _stopped("training", logs["train"])
    try:
        manifest = read_json(folder / "manifest.json")
    except UserError as error:
        return str(error)
    if other := other_settings(manifest, settings):
        return other
    if manifest.get("code") != code:
        return "trained by other code than there is now"
    trained = _time(folder / "model.safetensors")
    newer = {path for path in (*data, splits) if _time(path) > trained}
    if newer - {splits} or (newer and sha256(splits) != manifest["data"]["splits"]):
        return "trained before its data or splits changed"
    tested = [folder / name for name in (*FILES["predict"], PREDICTIONS[task])]
    if any(not path.exists() for path in tested):
        return f"trained; {_stopped('test', logs['predict'])}"
    if any(_time(path) < trained for path in tested):
        return "trained; tested with earlier weights"
    return None


def other_settings(manifest: Mapping, settings: Mapping) -> str | None:
    """That a cell was trained with other settings, with the first that differs; None if it was not.

    Args:
        manifest: of the cell.
        settings: as in `why`.
    """
    found, expected = dict(_values(manifest.get("settings"))), dict(_values(settings))
    for key in (*expected, *found):
        if found.get(key, "nothing") != expected.get(key, "nothing"):
            return (
                "trained with other settings than the configuration has now: found "
                f"{key} {found.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
            )
    return None


def _values(settings: object, key: str = "") -> Iterator[tuple[str, str]]:
    """The keys of nested settings, such as "training.epochs", each with its value as JSON."""
    if not isinstance(settings, Mapping) or not settings:
        yield key, json.dumps(settings)
    else:
        for name, value in settings.items():
            yield from _values(value, f"{key}.{name}".lstrip("."))


def _time(path: Path) -> int:
    """When a file was changed, 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def failures(jobs: Iterable[Iterable[Path]]) -> list[str]:
    """A line for each job that failed, at most `MOST`: its log, and how it ended.

    `jobs` are the logs of each. Those of several jobs that a cluster runs as one fail as one; where
    some of them say that they did, the others are not named. Who says why comes first.
    """
    lines = []
    for logs in jobs:
        ends = [_stopped(f"{log}:", log) for log in logs]
        lines += [end for end in ends if " failed: " in end] or ends
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return sorted(lines, key=lambda line: (" failed: " not in line, line))[:MOST] + more


def _stopped(step: str, log: Path) -> str:
    """How far a step came, by its log."""
    try:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return f"{step} not started"
    if not lines:
        return f"{step} started, not finished"
    if errors := [found for line in lines if (found := re.match(r"error in [\w-]+: (.*)", line))]:
        return f"{step} failed: {errors[-1][1][:LONGEST]}"
    if traces := [place for place, line in enumerate(lines) if line.startswith("Traceback")]:
        after = (line for line in lines[traces[-1] + 1 :] if not line.startswith(" "))
        return f"{step} failed: {next(after, 'no reason given')[:LONGEST]}"
    epochs = [found for line in lines if (found := re.search(r": (\d+)/(\d+), ", line))]
    if epochs:
        return f"{step} stopped after epoch {epochs[-1][1]} of {epochs[-1][2]}"
    return f"{step} started, not finished"
