"""What the published claims come to

Claims of the published studies and what the runs of this one ({study}: {dataset}) say of them, each
decided by a statistic of its tables alone; a control is no claim of a study. Supported or
contradicted: the statistic is clear beyond its uncertainty. Cannot be separated: the runs, or the
test patients, are too few or too alike to tell. Not run: the cells that would decide are not in
this study; these claims share a row a study. A verdict is of these data, networks and epochs; it
does not judge what the studies measured on theirs. The claims page has the sentence of each
statistic in full.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from dpmedbench.figures import style, text_table
from dpmedbench.figures.described import STUDIES
from dpmedbench.verdicts import CONTRADICTED, NOT_RUN, SIGNS, SUPPORTED, UNCLEAR

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 270
NEEDS = ("claims",)
SCOPE = "study"

HEADS = ("Claim", "Finding", "Verdict")
WIDTHS = (2.75, 3.1, 1.25)  # inches
LONGEST = 130  # letters of a cell, without what stands in brackets at its end
COLOURS = {
    SUPPORTED: "#029e73",
    CONTRADICTED: "#c1500a",
    UNCLEAR: "#0173b2",
    NOT_RUN: style.MUTED,
}


def draw(claims: pd.DataFrame) -> Figure:
    """A table: a heading a study, a row a claim, the verdict by colour, sign and word."""
    rows: list[tuple[text_table.Cell, ...]] = []
    for study, part in claims.groupby("study", sort=False):
        rows.append((STUDIES.get(study, study),))
        decided = part["verdict"] != NOT_RUN
        rows += [_row(row) for row in part[decided].itertuples()]
        if others := int((~decided).sum()):
            number = f"{others} more" if decided.any() else f"{others} claims"
            rows.append((number, "no cells to decide", _verdict(NOT_RUN)))
    return text_table.figure(HEADS, rows or [("no claims", "", "")], WIDTHS)[0]


def numbers(claims: pd.DataFrame) -> str:
    """How many claims have which verdict."""
    counts = claims["verdict"].value_counts()
    verdicts = ", ".join(f"{counts[name]} {name}" for name in COLOURS if name in counts)
    return f"Of {len(claims)} claims and controls: {verdicts}." if len(claims) else ""


def _row(claim) -> tuple[text_table.Cell, ...]:
    return (
        _short(claim.claim),
        _short(claim.finding),
        _verdict(claim.verdict),
    )


def _verdict(verdict: str) -> tuple[str, str]:
    return f"{SIGNS[verdict]} {verdict}", COLOURS[verdict]


def _short(text: str) -> str:
    words, bracket = re.fullmatch(r"(.*?)(\s*\([^()]*\)\.?)?", text, re.DOTALL).groups("")
    return textwrap.shorten(words, LONGEST, placeholder=" …") + bracket
