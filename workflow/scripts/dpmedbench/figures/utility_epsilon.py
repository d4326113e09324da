"""Utility against epsilon

Score on the test set of {dataset} over the privacy spent in training ({accountant}, delta =
{delta}, unit: one {unit}), a line a mechanism through its noise levels ({noise}). Points of one
epsilon are set a little apart, by 4 % of the axis at most, so that all are seen. Whiskers: 95 %
intervals; where two overlap, the order of two mechanisms is not settled: see the differences
between mechanisms. Line across: training without privacy, with its interval; dashed: the constant
predictor, which looks at no image. A private model near the dashed line has learned nothing,
however small its epsilon. Noise on the images (beta) is placed at the epsilon of all pixels of an
image together, at infinity where it protects nothing. An epsilon says what a mechanism guarantees,
not what an attack would find, and holds for one {unit}, not for all of one patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.figures import palette, style, utility, wording
from dpmedbench.figures.curves import reference_handle
from dpmedbench.results import CONSTANT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = 200
NEEDS = ("summary", "privacy")

APART, FURTHEST = 0.02, 0.08  # of the width of a panel: points of one epsilon, all of them


def draw(summary: pd.DataFrame, privacy: pd.DataFrame) -> Figure:
    """A panel a model, a line a mechanism."""
    scores = utility.scored(summary)
    trained = utility.with_epsilon(utility.trained(scores), privacy)
    models = list(trained["model"].unique())
    if not models:
        return style.empty(summary, "no scores: nothing was tested")
    sections = [
        style.mechanism_section(trained),
        style.noise_section(trained, marker="o"),
        ("Reference", [("constant predictor", reference_handle(style.DASHED))]),
    ]
    figure, panels = style.panels([wording.name(model) for model in models], sections)
    private = trained[trained["privacy"] != "none"]
    levels = wording.noises(trained["privacy"])
    for model, axes in zip(models, panels, strict=True):
        infinite = utility.epsilon_axis(axes, private["epsilon"], utility.delta(privacy))
        of_model = scores[scores["model"] == model]
        for row in of_model[of_model["privacy"] == "none"].itertuples():
            _across(axes, row, palette.colours(trained).get(row.mechanism))
        part = private[private["model"] == model]
        if part.empty:
            style.explain(axes, "no private mechanism was trained")
        _lines(axes, part, levels, infinite)
    for axes in panels[::3]:
        axes.set_ylabel(utility.label(scores))
    style.headline(figure, summary, utility.interval_note(trained))
    return figure


def numbers(summary: pd.DataFrame, privacy: pd.DataFrame) -> str:
    """The best mechanism at the least and at the most epsilon of each model."""
    scores = utility.scored(summary)
    trained = utility.with_epsilon(utility.trained(scores), privacy)
    said = []
    for model, part in trained.groupby("model", sort=False):
        private = part[(part["privacy"] != "none") & np.isfinite(part["epsilon"])]
        ends = sorted({private["epsilon"].min(), private["epsilon"].max()}) if len(private) else []
        words = []
        for epsilon in ends:
            best = max(private[private["epsilon"] == epsilon].itertuples(), key=lambda r: r.value)
            words.append(
                f"{best.value:.2f} at epsilon {wording.number(epsilon)} "
                f"({wording.name(best.mechanism)})"
            )
        references = scores[(scores["model"] == model) & (scores["privacy"] == "none")]
        words += [
            f"{row.value:.2f} by {_reference(row.mechanism)}"
            for row in sorted(references.itertuples(), key=lambda row: row.mechanism == CONSTANT)
        ]
        if words:
            said.append(f"{wording.name(model)}: {', '.join(words)}")
    return f"Best {utility.name(trained)}: {'; '.join(said)}." if said else ""


def _reference(mechanism: str) -> str:
    if mechanism == CONSTANT:
        return "the constant predictor"
    return f"{wording.name(mechanism).lower()} training"


def _across(axes: Axes, row, colour: str | None) -> None:
    constant = row.mechanism == CONSTANT
    colour = style.MUTED if constant else colour
    axes.axhline(
        row.value, color=colour, linestyle=style.DASHED if constant else "-", linewidth=1,
        zorder=1.9, label=f"{row.mechanism}/none",
    )  # fmt: skip
    if np.isfinite(row.low):
        axes.axhspan(row.low, row.high, color=colour, alpha=0.12, linewidth=0)


def _lines(axes: Axes, part: pd.DataFrame, levels: list[str], infinite: float) -> None:
    mechanisms = palette.colours(part)
    width = np.log10(axes.get_xlim()[1] / axes.get_xlim()[0])
    apart = width * min(APART, FURTHEST / max(len(mechanisms) - 1, 1))
    for _, epsilons in part[np.isfinite(part["epsilon"])].groupby("mechanism")["epsilon"]:
        gaps = np.diff(np.sort(np.log10(epsilons)))
        apart = min([apart, *gaps / (len(mechanisms) + 2)])
    for place, (mechanism, colour) in enumerate(mechanisms.items()):
        shift = 10 ** (apart * (place - (len(mechanisms) - 1) / 2))
        of_mechanism = part[part["mechanism"] == mechanism]
        of_mechanism = of_mechanism.assign(
            x=of_mechanism["epsilon"].replace(np.inf, infinite) * shift
        )
        of_mechanism = of_mechanism.sort_values("x", kind="stable")
        axes.plot(
            of_mechanism["x"], of_mechanism["value"], color=colour, linewidth=0.9, alpha=0.7,
            label=f"{mechanism}/line",
        )  # fmt: skip
        for row in of_mechanism.itertuples():
            tint = palette.shade(colour, levels.index(row.privacy), len(levels))
            axes.vlines(row.x, row.low, row.high, color=tint, linewidth=0.9)
            axes.plot(row.x, row.value, "o", color=tint, label=f"{mechanism}/{row.privacy}")
