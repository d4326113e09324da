"""What the figures over epochs share: a panel a model, a line a mechanism and noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dpmedbench.figures import style, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_EPOCHS = 12
MANY = 8  # lines from which on bands are fainter
SPREAD = "line: mean, band: minimum to maximum"
SAME = 0.02  # of the height of the panel: lines that are closer hide each other


def curves(
    frame: pd.DataFrame,
    column: str,
    label: str,
    *,
    empty: str,
    references: Sequence[style.Section] = (),
    shared_lines: bool = False,
    log: bool | None = None,
    notes: Sequence[str] = (),
) -> tuple[Figure, list[Axes]]:
    """Draw `column` over epochs; the y axis is named `label` and is shared by all models.

    Lines are means over folds and seeds, bands their minimum and maximum. Values that are not
    finite are left out and counted above the panels; `empty` says why a panel has none.
    `shared_lines` draws mechanisms with interleaved dashes, so that lines that coincide are all
    seen. The y axis is logarithmic if `log`, linear if not, and with None where
    values span decades.
    """
    finite = frame[np.isfinite(frame[column].astype(float))]
    models = list(frame["model"].unique())
    shown = finite if shared_lines else frame
    sections = [
        style.mechanism_section(shown),
        style.noise_section(shown, dashed=not shared_lines),
        *references,
    ]
    figure, panels = style.panels([wording.name(model) for model in models] or [" "], sections)
    for model, axes in zip(models, panels, strict=False):
        part = finite[finite["model"] == model]
        if part.empty:
            style.explain(axes, empty)
        else:
            _lines(axes, part, column, levels=wording.noises(frame["privacy"]), shared=shared_lines)
            axes.set_xlabel("epoch")
    if finite.empty:
        panels[0].set_yticks([])
    if not models:
        style.explain(panels[0], f"no rows of dataset {style.dataset(frame)} in the table")
    panels[0].set_ylabel(label)
    for axes in panels[3::3]:
        axes.set_ylabel(label)
    for axes in panels:
        if log is not False:
            style.log_if_decades(axes, finite[column], always=bool(log))
    missing = 0 if shared_lines else len(frame) - len(finite)
    style.headline(
        figure,
        frame,
        style.spread_note(frame, SPREAD) if models else "",
        f"{missing} of {len(frame)} values are not finite and left out" if missing else "",
        *notes,
    )
    return figure, panels


def _lines(
    axes: Axes, part: pd.DataFrame, column: str, *, levels: Sequence[str], shared: bool
) -> None:
    colours = style.colours(part)
    settings = part[["mechanism", "privacy"]].drop_duplicates()
    faint = 0.16 if len(settings) <= MANY else 0.07
    means = part.pivot_table(index="epoch", columns=["mechanism", "privacy"], values=column)
    drawn: list[tuple[str, str]] = []
    for index, (mechanism, colour) in enumerate(colours.items()):
        of_mechanism = part[part["mechanism"] == mechanism]
        for privacy in [*wording.noises(of_mechanism["privacy"]), "none"]:
            of_noise = of_mechanism[of_mechanism["privacy"] == privacy]
            if of_noise.empty:
                continue
            rank = levels.index(privacy) if privacy in levels else 0
            tint = style.shade(colour, rank, len(levels))
            line = _interleaved(index, len(colours)) if shared else style.dashes(rank)
            spread = of_noise.groupby("epoch")[column].agg(["mean", "min", "max", "size"])
            if spread["size"].max() > 1:
                axes.fill_between(
                    spread.index, spread["min"], spread["max"], color=tint, alpha=faint, linewidth=0
                )
            drawn.append((mechanism, privacy))
            axes.plot(
                spread.index,
                spread["mean"],
                color=tint,
                linestyle=line,
                linewidth=None if shared else _width(means, drawn),
                marker="o" if len(spread) <= FEW_EPOCHS else "",
                label=f"{mechanism}/{privacy}",
                zorder=3 if privacy == "none" else 2.5,
            )
    last = int(part["epoch"].max())
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    if last == 1:
        axes.set_xlim(0.5, 1.5)
        axes.set_xticks([1])


def _width(means: pd.DataFrame, drawn: Sequence[tuple[str, str]]) -> float | None:
    """The width of the last line drawn: thin on top of one that it would hide, else as usual."""
    *below, this = drawn
    height = SAME * float(means.max().max() - means.min().min())
    hidden = sum(bool((means[this] - means[other]).abs().max() <= height) for other in below)
    return mpl.rcParams["lines.linewidth"] * 0.4**hidden if hidden else None


def _interleaved(index: int, count: int) -> object:
    """A dash in every `count`-th place: lines on top of each other alternate in colour."""
    return "-" if count == 1 else (4 * index, (4, 4 * (count - 1)))


def reference(axes: Axes, value: float, dash: object, label: str) -> None:
    """A level line across a panel, named in the legend."""
    axes.axhline(value, color=style.MUTED, linestyle=dash, linewidth=1, label=label, zorder=2)


def reference_handle(dash: object) -> Line2D:
    """What stands for a level line in the legend."""
    return Line2D([], [], color=style.MUTED, linestyle=dash, linewidth=1)
