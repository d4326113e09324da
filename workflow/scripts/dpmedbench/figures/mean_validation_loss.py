"""Mean validation loss

Validation loss on {dataset} averaged over all {epochs} epochs, for each mechanism ({mechanisms})
and noise level ({noise}). Whiskers: 95 % intervals over runs where there are several. The mean over
epochs weighs the start of training as much as its end: it compares speeds of convergence, not final
models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.figures import live, palette, style, utility, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = 70
NEEDS = ("summary",)
PUBLISHED = {"bookkeeping": "Figures 13 and 14"}

MANY = 24  # bars from which on a panel is as wide as the page


def draw(summary: pd.DataFrame) -> Figure:
    """A bar a mechanism and noise level."""
    bars = _bars_of(summary)
    if bars.empty:
        return style.empty(summary, "no validation loss: nothing was validated")
    models = list(bars["model"].unique())
    labels = ["none"] * bool((bars["privacy"] == "none").any()) + wording.noises(bars["privacy"])
    wide = len(labels) * _most(bars) > MANY
    figure, panels = style.panels(
        [wording.name(model) for model in models],
        [style.mechanism_section(bars)],
        across=1 if wide else 3,
        wide=wide,
    )
    axis_name, ticks = wording.noise_axis(labels)
    for model, axes in zip(models, panels, strict=True):
        part = bars[bars["model"] == model]
        if not np.isfinite(part["value"]).any():
            style.explain(axes, "no finite validation loss: not validated, or diverged")
            continue
        _draw_bars(axes, part, labels, palette.colours(bars))
        axes.set_xticks(range(len(ticks)), ticks, fontsize=style.SMALL if len(ticks) < 9 else 5.5)
        axes.set_xlabel(axis_name)
        axes.set_xlim(min(-0.6, -1.5 + len(ticks) / 2), max(len(ticks) - 0.4, 0.5 + len(ticks) / 2))
        axes.grid(False, axis="x")
    loss = "cross-entropy" if "accuracy" in set(summary["metric"]) else "cross-entropy + Dice"
    for axes in panels[:: 1 if wide else 3]:
        axes.set_ylabel(f"mean validation loss\n({loss})")
    missing = int((~np.isfinite(bars["value"])).sum())
    style.headline(
        figure,
        summary,
        utility.interval_note(bars),
        f"{missing} of {len(bars)} values are not finite and left out" if missing else "",
    )
    return figure


def numbers(summary: pd.DataFrame) -> str:
    """The mean of every setting."""
    bars = _bars_of(summary)
    return f"Means: {live.spans(bars, 'value')}." if len(bars) else ""


def _bars_of(summary: pd.DataFrame) -> pd.DataFrame:
    bars = summary[summary["metric"] == "mean_val_loss"]
    bars.attrs = summary.attrs
    return bars


def _most(bars: pd.DataFrame) -> int:
    """The most mechanisms that one noise level has."""
    return bars.groupby("privacy")["mechanism"].nunique().max()


def _draw_bars(axes: Axes, part: pd.DataFrame, labels: list[str], colours: dict[str, str]) -> None:
    width = 0.84 / _most(part)
    for position, label in enumerate(labels):
        at = part[part["privacy"] == label].set_index("mechanism")
        present = [mechanism for mechanism in colours if mechanism in at.index]
        for place, mechanism in enumerate(present):
            bar = at.loc[mechanism]
            axes.bar(
                position + (place - (len(present) - 1) / 2) * width,
                bar["value"],
                width=min(width * 0.92, 0.6),
                color=colours[mechanism],
                linewidth=0,
                yerr=style.whiskers(bar),
                error_kw=style.WHISKERS,
                label=f"{mechanism}/{label}",
            )
