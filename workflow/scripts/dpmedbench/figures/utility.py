"""What figures of utility share: the score of a task, its epsilon, what its intervals are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator

from dpmedbench.figures import style, wording
from dpmedbench.results import CONSTANT, SETTING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCORES = {
    "dice": ("Dice", "test Dice, mean of classes\nwithout background (0 to 1)"),
    "balanced_accuracy": ("balanced accuracy", "balanced accuracy on the\ntest set (0 to 1)"),
}
TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))  # in a decade, of an epsilon
FEWEST = 3  # ticks: else those with more in a decade
GUTTER = 0.1  # of the width of a panel: between the last epsilon and ∞


def scored(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that hold the score of the task, with the colours of the study."""
    return _like(summary, summary[summary["metric"].isin(SCORES)])


def trained(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of mechanisms, without the constant predictor."""
    return _like(scores, scores[scores["mechanism"] != CONSTANT])


def name(scores: pd.DataFrame) -> str:
    """The score in a sentence."""
    return " or ".join(SCORES[metric][0] for metric in scores["metric"].unique())


def label(scores: pd.DataFrame) -> str:
    """The score on an axis."""
    return SCORES[next(iter(scores["metric"]), "dice")][1]


def with_epsilon(scores: pd.DataFrame, privacy: pd.DataFrame) -> pd.DataFrame:
    """`scores` with the epsilon for one whole image, whichever way it is protected.

    Training that is private has that of its weights. Noise on the images protects each of them by
    the epsilon of all its pixels, or by none (inf). Six digits, so that what is equal compares so.
    """
    images = privacy.groupby(SETTING)["epsilon_per_image"].mean().rename("_image")
    joined = scores.merge(images.reset_index(), on=SETTING, how="left")
    local = joined["privacy"].str.startswith("beta")
    epsilon = joined["epsilon"].where(~local, joined.pop("_image"))
    joined["epsilon"] = epsilon.map("{:.6g}".format).astype(float)
    return _like(scores, joined)


def epsilon_axis(axes: Axes, epsilons: Iterable[float], delta: str) -> float:
    """Make x a logarithmic axis of epsilon; return where what has no finite epsilon goes."""
    values = np.array([value for value in epsilons if value > 0], dtype=float)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
    reach = max(np.log10(high / low), 1.0)
    infinite = high * 10 ** (GUTTER * reach + 0.05)
    end = infinite if len(finite) < len(values) else high
    style.log_if_decades(axes, [low, high], axis="x", always=True)
    axes.set_xlim(low / 10 ** (0.08 * reach), end * 10 ** (0.08 * reach))
    ticks = []
    for subs in TICKS if high > low else ():
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        if len(ticks) >= FEWEST:
            break
    ticks = ticks or list(finite[:1])
    names = [wording.number(tick) for tick in ticks]
    if end == infinite:
        ticks, names = [*ticks, infinite], [*names, "∞"]
    axes.set_xticks(ticks, names)
    axes.set_xlabel(f"privacy spent, ε\n(one image{delta})")
    return infinite


def delta(privacy: pd.DataFrame) -> str:
    """ ", δ = 1e-5" of the private cells; empty where there are none."""
    found = privacy["delta"].dropna().unique()
    return ", δ = " + ", ".join(wording.power(value) for value in found) if len(found) else ""


def interval_note(scores: pd.DataFrame) -> str:
    """What the intervals are, and which settings have none."""
    levels = sorted(set(scores.loc[scores["level"] != "none", "level"]))
    single = int(scores["low"].isna().sum())
    if not levels:
        return "single runs, no intervals"
    note = f"95 % intervals over {', '.join(levels)}"
    few = f"{note}; {single} of {len(scores)} settings: a single run, no interval"
    return few if single else note


def _like(frame: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    part.attrs = frame.attrs
    return part
