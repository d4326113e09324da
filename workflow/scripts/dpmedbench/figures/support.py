"""Libraries and methods

What can be trained with what: every mode of every private engine, the clipping functions it takes
with one norm over all parameters (flat) or one for each tensor (per_layer), and whether it can mask
the gradients of single records, which random sparsification needs. Read off the engines' own
registry, by which a configuration is refused that asks for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dpmedbench.figures import style, text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDER = 15
NEEDS = ("support",)
SCOPE = "study"
PUBLISHED = {"clipping": "Libraries and methods"}

NAMES, LAST = (0.95, 1.3), 1.0  # inches
YES, NO = ("✓", "#0b6e4f"), ("–", style.MUTED)


def draw(support: Sequence[Mapping[str, object]]) -> Figure:
    """A row a mode, a column a method."""
    heads = [head.replace(", ", " ") for head in support[0]]
    ways = len(heads) - len(NAMES) - 1
    widths = [*NAMES, *[(style.DOUBLE - sum(NAMES) - LAST) / ways] * ways, LAST]
    rows = [
        [
            ("" if above is not None and above["engine"] == row["engine"] else row["engine"]),
            row["mode"],
            *(YES if row[head] else NO for head in list(row)[2:]),
        ]
        for above, row in zip([None, *support], support, strict=False)
    ]
    return text_table.figure(heads, rows, widths)[0]


def numbers(support: Sequence[Mapping[str, object]]) -> str:
    """How many modes there are, and how many can sparsify."""
    able = sum(bool(row["random sparsification"]) for row in support)
    engines = len({row["engine"] for row in support})
    return f"{len(support)} modes of {engines} engines; {able} of them can sparsify."
