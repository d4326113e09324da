"""The one look of all figures: sizes, fonts, colours, legends."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dpmedbench.figures import palette, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SINGLE, DOUBLE = 3.5, 7.16  # inches: one and two columns of a paper
PANEL_HEIGHT = 2.2
SMALL = 7  # points
MUTED = "#6b6b6b"
VOID = "#b0b0b0"  # no value: a pixel that was not graded, a class without a score
DECADES = 1.5
WHISKERS = {"linewidth": 0.8, "ecolor": MUTED}  # error_kw of a bar
DASHED = (0, (6, 3))  # the line of the constant predictor

SETTING = ["model", "mechanism", "privacy"]  # of one dataset

Section = tuple[str, list[tuple[str, "Artist"]]]
BLANK = (" ", Line2D([], [], linestyle="none"))


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """Inside, matplotlib draws in the style of the figures."""
    own = {
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same text everywhere
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "axes.titleweight": "bold",
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.linewidth": 0.5,
        "hatch.linewidth": 0.5,
        "savefig.facecolor": "white",
        "svg.hashsalt": "dpmedbench",
        "figure.constrained_layout.h_pad": 0.05,
        "figure.constrained_layout.w_pad": 0.05,
    }
    context = sns.plotting_context("paper")
    with mpl.rc_context(context | sns.axes_style("ticks") | own):
        yield


def panels(
    titles: Sequence[str],
    sections: Sequence[Section],
    *,
    sharey: bool | str = True,
    across: int = 3,
    height: float = PANEL_HEIGHT,
    wide: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a title and its legend outside of them.

    One panel is one column of a paper wide, if not `wide`, with its legend below; more are two,
    at most `across` side by side, with the legend at the right. `height` is that of a panel.
    """
    columns = min(len(titles), across)
    rows = -(-len(titles) // columns)
    alone = columns == 1 and not wide
    width = SINGLE if alone else DOUBLE
    lines = max(map(len, _legend_columns(sections, width if alone else 0)), default=0)
    legend_height = 0.155 * lines + 0.1
    height = rows * height + 0.45
    height = height + legend_height if alone else max(height, legend_height + 0.2)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel().tolist()
    for axes in grid[len(titles) :]:
        figure.delaxes(axes)
    axes_list = grid[: len(titles)]
    for axes, title in zip(axes_list, titles, strict=True):
        axes.set_title(title)
    legend(figure, sections, below=alone)
    return figure, axes_list


def legend(figure: Figure, sections: Sequence[Section], *, below: bool) -> None:
    """One legend outside the axes: a headed section after the other at the right, or below the
    axes side by side as far as they fit, a single one in a row."""
    columns = _legend_columns(sections, figure.get_figwidth() if below else 0)
    if not columns:
        return
    if below and len(sections) == 1:
        (rows,) = columns
        across = max(int(figure.get_figwidth() / _inches(dict(rows))), 1)
        lines = -(-len(rows) // across)
        columns = [rows[start : start + lines] for start in range(0, len(rows), lines)]
    length = max(map(len, columns))
    rows = [row for column in columns for row in column + [BLANK] * (length - len(column))]
    made = figure.legend(
        [artist for _, artist in rows],
        [label for label, _ in rows],
        loc="outside lower center" if below else "outside right upper",
        ncols=len(columns),
        handlelength=2.2,
        columnspacing=1.0,
        labelspacing=0.35,
    )
    headings = {title for title, _ in sections}
    for text in made.get_texts():
        if text.get_text() in headings:
            text.set_fontweight("bold")


def _legend_columns(sections: Sequence[Section], width: float) -> list[list[tuple[str, Artist]]]:
    """Legend rows in as many columns as fit `width` inches, at least one."""
    columns = [[(title, BLANK[1]), *entries] for title, entries in sections if entries]
    while len(columns) > 1 and sum(_inches(dict(column)) for column in columns) > width:
        columns[-2:] = [[*columns[-2], BLANK, *columns[-1]]]
    return columns


def _inches(labels: Iterable[str]) -> float:
    """A safe guess of the width of a legend column."""
    return 0.062 * max(map(len, labels)) + 0.45


def mechanism_section(frame: pd.DataFrame) -> Section:
    """Legend section: the colour of each mechanism."""
    colours = palette.colours(frame).items()
    return "Mechanism", [
        (wording.name(name), Line2D([], [], color=colour, linewidth=2)) for name, colour in colours
    ]


def noise_section(frame: pd.DataFrame, *, dashed: bool = True, marker: str = "") -> Section:
    """Legend section: the shade (and line style) of each noise level."""
    levels = wording.noises(frame["privacy"])
    entries = [
        (
            wording.noise_name(level),
            Line2D(
                [],
                [],
                color=palette.shade("#404040", rank, len(levels)),
                linestyle="none" if marker else palette.dashes(rank) if dashed else "-",
                marker=marker,
                linewidth=1.6,
            ),
        )
        for rank, level in enumerate(levels)
    ]
    return "Noise", entries


def headline(figure: Figure, frame: pd.DataFrame, *notes: str) -> None:
    """A small line above the panels: the dataset and what a reader must know of the drawing."""
    names = dataset(frame)
    parts = [f"Dataset{'s' * (', ' in names)} {names}", *(note for note in notes if note)]
    text = "; ".join(parts) + "."
    beside = 0.0
    if figure.legends and figure.get_figwidth() > SINGLE:
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        beside = _inches(labels)
    width = int((figure.get_figwidth() - beside) * 17.5)
    figure.suptitle(
        textwrap.fill(text, width, break_on_hyphens=False),
        x=0.01,
        ha="left",
        fontsize=SMALL,
        color=MUTED,
        weight="normal",
    )


def dataset(frame: pd.DataFrame) -> str:
    """Name of the one dataset of a table."""
    return frame.attrs.get("dataset") or ", ".join(frame["dataset"].unique())


def loss(history: pd.DataFrame) -> str:
    """What the loss is made of: only classification has an accuracy on the training set."""
    classifies = "train_accuracy" in history and history["train_accuracy"].notna().any()
    return "cross-entropy" if classifies else "cross-entropy + Dice"


def runs(frame: pd.DataFrame) -> int:
    """Most runs (folds x seeds) that any one setting has."""
    counts = frame[[*SETTING, "fold", "seed"]].drop_duplicates().groupby(SETTING).size()
    return int(counts.max()) if len(counts) else 0


def log_if_decades(
    axes: Axes, values: object, *, axis: str = "y", always: bool = False, decades: float = DECADES
) -> bool:
    """Make an axis logarithmic where its positive finite values span so many decades or more.

    Returns whether it is. Values of zero and below keep it linear.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0:
        return False
    span = np.log10(values.max() / values.min())
    if span < decades and not always:
        return False
    getattr(axes, f"set_{axis}scale")("log")
    scale = getattr(axes, f"{axis}axis")
    subs = (1, 1.5, 2, 3, 4, 5, 6, 8) if span < 0.8 else (1, 2, 5) if span < 2.5 else (1,)
    scale.set_major_locator(LogLocator(subs=subs))
    scale.set_major_formatter(FuncFormatter(lambda value, _: wording.number(value, "g")))
    scale.set_minor_locator(NullLocator())
    return True


def whiskers(row: pd.Series) -> list[list[float]] | None:
    """The interval of a row of the summary as matplotlib takes it, None where there is none."""
    below, above = row["value"] - row["low"], row["high"] - row["value"]
    # an end that is cut to what can be may lie below the value by a rounding
    return [[max(below, 0)], [max(above, 0)]] if np.isfinite(below + above) else None


def empty(frame: pd.DataFrame, why: str) -> Figure:
    """A figure with nothing to draw: `why`, or that `frame` has no rows of the dataset."""
    figure, (axes,) = panels([" "], [])
    explain(axes, why if len(frame) else f"no rows of dataset {dataset(frame)} in the table")
    axes.set_yticks([])
    headline(figure, frame)
    return figure


def explain(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    inches = axes.get_position().width * axes.figure.get_figwidth()
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, min(max(int(13 * inches), 10), 26), break_on_hyphens=False),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=MUTED,
        style="italic",
    )
    axes.grid(False)
    axes.set_xticks([])
