"""What the figures over epochs share: a panel a model, a line a mechanism and noise level.

Where there are too many lines for a panel, a panel a model and mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpmedbench.figures import palette, style, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_EPOCHS = 12
MANY = 8  # lines from which on bands are fainter
CROWD = 20  # lines from which on each mechanism has panels of its own
LOW = 1.45  # inches: height of such a panel
Panel = tuple[str, "Axes"]
SAME = 0.02  # of the height of the panel: lines that are closer hide each other


def curves(
    frame: pd.DataFrame,
    column: str,
    label: str,
    *,
    empty: str,
    references: Sequence[style.Section] = (),
    shared_lines: bool = False,
    log: bool | float = style.DECADES,
    notes: Sequence[str] = (),
    across: int = 3,
    sharey: bool | str = True,
) -> tuple[Figure, list[Panel]]:
    """Draw `column` over epochs; the y axis is named `label` and is shared as `sharey` says.

    Lines are means over folds and seeds, bands their minimum and maximum. Values that are not
    finite are left out and counted above the panels; `empty` says why a panel has none.
    `shared_lines` draws mechanisms with interleaved dashes, so that lines that coincide are all
    seen. The y axis is logarithmic if `log`, linear if not, and with a number where values span
    so many decades. At most `across` panels stand side by side. Returns the panels with the model
    that each is of.
    """
    if frame.empty:
        return style.empty(frame, empty), []
    finite = frame[np.isfinite(frame[column].astype(float))]
    shown = finite if shared_lines else frame
    sections = [
        style.mechanism_section(shown),
        style.noise_section(shown, dashed=not shared_lines),
        *references,
    ]
    views = _views(frame, finite, crowded(frame) and not shared_lines)
    models = list(frame["model"].unique())
    apart = len(views) > len(models)
    across = len(models) if apart and 1 < len(models) < across else across
    figure, axes_list = style.panels(
        [title for title, *_ in views],
        sections,
        sharey=sharey,
        across=across,
        height=LOW if apart else style.PANEL_HEIGHT,
    )
    levels = wording.noises(frame["privacy"])
    for number, (axes, (_, _, part)) in enumerate(zip(axes_list, views, strict=False)):
        if part.empty:
            style.explain(axes, empty)
            continue
        _lines(axes, part, column, levels=levels, shared=shared_lines)
        if number >= len(views) - across or not apart:
            axes.set_xlabel("epoch")
    if finite.empty:
        axes_list[0].set_yticks([])
    if apart:  # too low for a label each
        figure.supylabel(label, fontsize=mpl.rcParams["axes.labelsize"])
    else:
        for axes in axes_list[::across]:
            axes.set_ylabel(label)
    for axes in axes_list:
        if log is not False:
            style.log_if_decades(axes, finite[column], always=log is True, decades=log)
    missing = 0 if shared_lines else len(frame) - len(finite)
    style.headline(
        figure,
        frame,
        _spread_note(frame),
        "a panel a mechanism, what is not private in each" if apart else "",
        f"{missing} of {len(frame)} values are not finite and left out" if missing else "",
        *notes,
    )
    return figure, [(model, axes) for axes, (_, model, _) in zip(axes_list, views, strict=False)]


def crowded(frame: pd.DataFrame) -> bool:
    """Whether some model has too many settings for one panel."""
    settings = frame[style.SETTING].drop_duplicates()
    return bool((settings.groupby("model").size() > CROWD).any())


def _views(
    frame: pd.DataFrame, finite: pd.DataFrame, apart: bool
) -> list[tuple[str, str, pd.DataFrame]]:
    """Title, model and rows of each panel: of a model, or, `apart`, of one of its mechanisms."""
    models = list(frame["model"].unique())
    if not apart:
        return [(wording.name(name), name, finite[finite["model"] == name]) for name in models]
    rows = frame[frame["privacy"] != "none"]
    rows.attrs = frame.attrs
    pairs = [(mechanism, model) for mechanism in palette.colours(rows) for model in models]
    known = set(rows[["mechanism", "model"]].itertuples(index=False, name=None))
    views = []
    for mechanism, model in pairs:
        if (mechanism, model) in known:
            wanted = (finite["model"] == model) & (
                (finite["mechanism"] == mechanism) | (finite["privacy"] == "none")
            )
            name = " ".join(wording.name(model).split("\n"))
            several = [name] if len(models) > 1 else []
            title = "\n".join([*several, wording.name(mechanism)])
            views.append((title, model, finite[wanted]))
    return views


def stacked(
    history: pd.DataFrame, columns: Mapping[str, str], name: str, *, by_model: bool
) -> pd.DataFrame:
    """A row an epoch and column of `columns` (column: its title), with the value as `name`.

    `model` names the model and the column, so that each pair has a panel: those of a model one
    after the other, or, not `by_model`, those of a column.
    """
    import pandas as pd

    models = list(history["model"].unique())
    pairs = [(model, column) for model in models for column in columns]
    if not by_model:
        pairs = [(model, column) for column in columns for model in models]
    frames = [
        rows.assign(model=f"{wording.name(model)}\n{columns[column]}", **{name: rows[column]})
        for model, column in pairs
        for rows in [history[history["model"] == model]]
    ]
    found = pd.concat(frames, ignore_index=True) if frames else history.assign(**{name: []})
    found.attrs = history.attrs
    return found


def _lines(
    axes: Axes, part: pd.DataFrame, column: str, *, levels: Sequence[str], shared: bool
) -> None:
    colours = palette.colours(part)
    order = {
        (mechanism, privacy): colour
        for mechanism, colour in colours.items()
        for privacy in [*levels, "none"]
    }
    lines = dict(list(part.groupby(["mechanism", "privacy"])))
    order = {key: colour for key, colour in order.items() if key in lines}
    faint = 0.16 if len(order) <= MANY else 0.07
    means = part.pivot_table(index="epoch", columns=["mechanism", "privacy"], values=column)
    widths = _widths(means[list(order)])
    for (mechanism, privacy), colour in order.items():
        rank = levels.index(privacy) if privacy in levels else 0
        tint = palette.shade(colour, rank, len(levels))
        place = list(colours).index(mechanism)
        spread = (
            lines[mechanism, privacy].groupby("epoch")[column].agg(["mean", "min", "max", "size"])
        )
        if spread["size"].max() > 1:
            axes.fill_between(
                spread.index, spread["min"], spread["max"], color=tint, alpha=faint, linewidth=0
            )
        axes.plot(
            spread.index,
            spread["mean"],
            color=tint,
            linestyle=_interleaved(place, len(colours)) if shared else palette.dashes(rank),
            linewidth=None if shared else widths[mechanism, privacy],
            marker="o" if len(spread) <= FEW_EPOCHS else "",
            label=f"{mechanism}/{privacy}",
            zorder=3 if privacy == "none" else 2.5,
        )
    last = int(part["epoch"].max())
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    if last == 1:
        axes.set_xlim(0.5, 1.5)
        axes.set_xticks([1])


def _widths(means: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """The width of each line, in the order they are drawn: thin on top of one that it would hide,
    else as usual (None)."""
    values = means.to_numpy(dtype=float).T
    height = SAME * float(np.nanmax(values) - np.nanmin(values))
    widths = {}
    for place, setting in enumerate(means):
        gaps = np.abs(values[:place] - values[place])
        hidden = int((np.fmax.reduce(gaps, axis=1) <= height).sum())
        widths[setting] = mpl.rcParams["lines.linewidth"] * 0.4**hidden if hidden else None
    return widths


def _interleaved(index: int, count: int) -> object:
    """A dash in every `count`-th place: lines on top of each other alternate in colour."""
    return "-" if count == 1 else (4 * index, (4, 4 * (count - 1)))


def _spread_note(frame: pd.DataFrame) -> str:
    """Says what the bands are, or that there are none."""
    count = style.runs(frame)
    if count <= 1:
        return "single runs, no spread to show"
    return f"up to {count} runs each: line: mean, band: minimum to maximum"


def reference(axes: Axes, value: float, dash: object, label: str) -> None:
    """A level line across a panel, named in the legend."""
    axes.axhline(value, color=style.MUTED, linestyle=dash, linewidth=1, label=label, zorder=2)


def reference_handle(dash: object) -> Line2D:
    """What stands for a level line in the legend."""
    return Line2D([], [], color=style.MUTED, linestyle=dash, linewidth=1)
