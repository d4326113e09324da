"""Mean validation loss

Validation loss on {dataset} averaged over all {epochs} epochs, for each mechanism ({mechanisms})
and noise level ({noise}). Whiskers: minimum to maximum over folds and seeds where there are
several. The mean over epochs weighs the start of training as much as its end: it compares speeds
of convergence, not final models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.figures import style, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CATEGORY = "Utility"
ORDER = 70
NEEDS = ("history",)

SETTING = ["model", "mechanism", "privacy"]


def draw(history: pd.DataFrame) -> Figure:
    """A bar a mechanism and noise level: the mean over epochs, then over folds and seeds."""
    finite = history[np.isfinite(history["val_loss"])]
    means = finite.groupby([*SETTING, "fold", "seed"])["val_loss"].mean()
    bars = means.groupby(SETTING).agg(["mean", "min", "max"]).reset_index()
    models = list(history["model"].unique())
    labels = ["none"] * bool((history["privacy"] == "none").any()) + wording.noises(
        history["privacy"]
    )
    figure, panels = style.panels(
        [wording.name(model) for model in models] or [" "], [style.mechanism_section(history)]
    )
    axis_name, ticks = wording.noise_axis(labels)
    for model, axes in zip(models, panels, strict=False):
        part = bars[bars["model"] == model]
        if part.empty:
            style.explain(axes, "no finite validation loss: not validated, or diverged")
            continue
        _bars(axes, part, labels, style.colours(history))
        axes.set_xticks(range(len(ticks)), ticks, fontsize=style.SMALL if len(ticks) < 9 else 5.5)
        axes.set_xlabel(axis_name)
        axes.set_xlim(min(-0.6, -1.5 + len(ticks) / 2), max(len(ticks) - 0.4, 0.5 + len(ticks) / 2))
        axes.grid(False, axis="x")
    if not models:
        style.explain(panels[0], f"no rows of dataset {style.dataset(history)} in the table")
    for axes in panels[::3]:
        axes.set_ylabel(f"mean validation loss\n({style.loss(history)})")
    missing = len(history) - len(finite)
    style.headline(
        figure,
        history,
        style.spread_note(history, "whiskers: minimum to maximum") if models else "",
        f"{missing} of {len(history)} values are not finite and left out" if missing else "",
    )
    return figure


def _bars(axes: Axes, part: pd.DataFrame, labels: list[str], colours: dict[str, str]) -> None:
    for position, label in enumerate(labels):
        at = part[part["privacy"] == label].set_index("mechanism")
        present = [mechanism for mechanism in colours if mechanism in at.index]
        private = max(part.loc[part["privacy"] != "none", "mechanism"].nunique(), 1)
        width = 0.84 / private
        for place, mechanism in enumerate(present):
            bar = at.loc[mechanism]
            x = position + (place - (len(present) - 1) / 2) * width
            whiskers = [[bar["mean"] - bar["min"]], [bar["max"] - bar["mean"]]]
            axes.bar(
                x,
                bar["mean"],
                width=min(width * 0.92, 0.6),
                color=colours[mechanism],
                yerr=whiskers if bar["max"] > bar["min"] else None,
                error_kw={"linewidth": 0.8, "ecolor": style.MUTED},
                label=f"{mechanism}/{label}",
            )
