"""Text in rows and columns, as a part of a figure or as a figure of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpmedbench.figures import style

LINE, GAP = 0.128, 0.07  # inches: a line of text, between two rows
WIDE = 18  # letters in an inch

Cell = str | tuple[str, str]  # a text, or a text and its colour


def figure(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], widths: Sequence[float]
) -> tuple[Figure, Axes]:
    """A figure that is a table, as high as its text; `widths` of the columns in inches."""
    made = Figure(figsize=(style.DOUBLE, height(heads, rows, widths) + 0.45), layout="constrained")
    axes = made.subplots()
    write(axes, heads, rows, widths)
    return made, axes


def height(heads: Sequence[str], rows: Sequence[Sequence[Cell]], widths: Sequence[float]) -> float:
    """Inches that the table needs."""
    return sum(LINE * _lines(row, widths) + GAP for row in (heads, *rows))


def write(
    axes: Axes,
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    widths: Sequence[float],
    least: float = 0.0,
) -> None:
    """Write a table into `axes`, which are taken to be `least` inches high or as high as it is.

    Texts are broken where their column ends. A row with a single cell is a heading.
    """
    axes.axis("off")
    axes.set(xticks=[], yticks=[])
    axes.set_xlim(0, sum(widths))
    axes.set_ylim(max(height(heads, rows, widths), least), 0)
    starts = [sum(widths[:column]) for column in range(len(widths))]
    top = 0.0
    for number, row in enumerate((heads, *rows)):
        heading = number == 0 or len(row) == 1
        for cell, start, width in zip(row, starts, _spans(row, widths), strict=False):
            text, colour = (cell, "black") if isinstance(cell, str) else cell
            for place, line in enumerate(_broken(text, width).split("\n")):
                axes.text(
                    start, top + GAP / 2 + LINE * (place + 0.78), line, fontsize=style.SMALL,
                    color=colour, fontweight="bold" if heading else "normal",
                )  # fmt: skip
        top += LINE * _lines(row, widths) + GAP
        axes.axhline(top, color="black" if number == 0 else "#dddddd", linewidth=0.5)


def _spans(row: Sequence[Cell], widths: Sequence[float]) -> Sequence[float]:
    return [sum(widths)] if len(row) == 1 else widths


def _lines(row: Sequence[Cell], widths: Sequence[float]) -> int:
    texts = [cell if isinstance(cell, str) else cell[0] for cell in row]
    broken = [_broken(text, w) for text, w in zip(texts, _spans(row, widths), strict=True)]
    return 1 + max(text.count("\n") for text in broken)


def _broken(text: str, width: float) -> str:
    return textwrap.fill(text, max(int(WIDE * width) - 1, 1), break_on_hyphens=False)
