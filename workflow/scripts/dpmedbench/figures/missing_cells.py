"""Cells left out and cells missing

What of the grids of study {study} is in no other figure. Left out: combinations that cannot be
trained, with the reason that the configuration was given before any job started. Missing: cells
that were to be trained and have no results, because the report is of an unfinished run; the last
thing that their log says. A row names between them the datasets, models, mechanisms and noise
levels of its cells, not every combination of these. An empty place in another figure that is not
explained here is not a cell that failed: it was never asked for.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dpmedbench.figures import text_table, wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDER = 260
NEEDS = ("left_out", "missing")
SCOPE = "study"

MOST = 12  # reasons of either kind
FEW = 4  # names that are listed in full
LONGEST = 160  # letters of a reason
HEADS = ("Why", "Cells", "Dataset", "Model", "Mechanism", "Noise")
WIDTHS = (2.55, 0.45, 0.95, 0.9, 1.3, 0.95)  # inches


def draw(left_out: Mapping[str, Sequence[str]], missing: Mapping[str, str]) -> Figure:
    """A table: a row a reason, those of the study and those of the run under a heading each."""
    reasons: dict[str, list[str]] = {}
    for folder, why in missing.items():
        reasons.setdefault(why, []).append(folder)
    rows = [("Left out: cannot be trained",), *_rows(left_out)]
    rows += [("Missing: no results yet",), *_rows(reasons)]
    return text_table.figure(HEADS, rows, WIDTHS)[0]


def numbers(left_out: Mapping[str, Sequence[str]], missing: Mapping[str, str]) -> str:
    """How many cells are left out and missing."""
    return f"{sum(map(len, left_out.values()))} cells are left out, {len(missing)} are missing."


def _rows(reasons: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    rows = [_row(why, folders) for why, folders in list(reasons.items())[:MOST]]
    if rest := list(reasons.values())[MOST:]:
        rows.append((f"and {len(rest)} other reasons", str(sum(map(len, rest))), "", "", "", ""))
    return rows or [("none", "0", "", "", "", "")]


def _row(why: str, folders: Sequence[str]) -> tuple[str, ...]:
    datasets, models, mechanisms, noise = (
        list(dict.fromkeys(folder.split("/")[part] for folder in folders)) for part in range(4)
    )
    return (
        textwrap.shorten(why, LONGEST, placeholder=" …"),
        str(len(folders)),
        _listed(datasets),
        _listed([wording.name(model) for model in models]),
        _listed([wording.name(mechanism) for mechanism in mechanisms]),
        _listed([wording.noise_name(level) for level in noise]),
    )


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= FEW else [*names[: FEW - 1], f"{len(names) - FEW + 1} more"]
    return ", ".join(shown)
