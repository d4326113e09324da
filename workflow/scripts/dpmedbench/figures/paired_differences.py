"""Differences between mechanisms

How much better or worse the second mechanism of a pair scores than the first on the same test
patients of {dataset}, after training with the same folds and seeds and at the same noise ({noise});
training without privacy has none and is compared at each. Whiskers: 95 % intervals over patients
and runs. Filled: p, the larger of a paired permutation test and of Student's of the interval, is
below 0.05 after Holm's correction for all comparisons of one network and noise; hollow: it is not.
The words at the right sum a row up. "Cannot be separated" does not say that two mechanisms are
equal: with few test patients hardly any difference can be separated. Single runs (crosses) have no
interval and no verdict, because another seed may turn them round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpmedbench.figures import palette, style, utility, wording
from dpmedbench.verdicts import HIGHER, LOWER, SINGLE, UNCLEAR

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 250
NEEDS = ("comparisons", "summary")

MOST = 15  # pairs of a model, of which all are shown
LONG = 50  # letters: pairs of longer names are written in two lines
# verdicts (`comparisons`) that look alike, and how: marker, filled
MARKS = {
    "separated from 0": ((HIGHER, LOWER), "o", True),
    UNCLEAR: ((UNCLEAR,), "o", False),
    SINGLE: ((SINGLE,), "x", True),
}


def draw(comparisons: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """A panel a model, a row a pair, a point a noise level."""
    found = utility.scored(comparisons)
    models = list(found["model"].unique())
    if not models:
        return style.empty(summary, "no private mechanism to compare with another")
    levels = wording.noises(found["privacy"])
    scores = utility.trained(utility.scored(summary))
    parts = [chosen(found[found["model"] == model], scores) for model in models]
    ordinary = set(scores.loc[scores["privacy"] == "none", "mechanism"])
    row = max(0.24, 0.04 * len(levels) + 0.06)
    heights = [row * len(_pairs(part)) + 0.3 for part in parts]
    legend = 0.155 * (1 + max(len(levels), len(MARKS)))
    figure = Figure(figsize=(style.DOUBLE, sum(heights) + legend + 0.85), layout="constrained")
    grid = figure.subplots(len(models), 1, squeeze=False, sharex=True, height_ratios=heights)
    for model, part, axes in zip(models, parts, grid.ravel(), strict=True):
        _rows(axes, part, levels)
        axes.set_title(wording.name(model), loc="left")
    grid[-1, 0].set_xlabel(f"difference in {utility.name(found)}")
    present = set(found["verdict"])
    verdicts = [
        (name, Line2D([], [], linestyle="none", color=style.MUTED, **_mark(name, style.MUTED)))
        for name, (alike, *_) in MARKS.items()
        if present & set(alike)
    ]
    sections = [("Verdict", verdicts), style.noise_section(found, marker="o")]
    style.legend(figure, sections, below=True)
    fewest, most = found["pairs"].min(), found["pairs"].max()
    patients = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    style.headline(
        figure,
        comparisons,
        f"{patients} test patients" if most > 1 else "1 test patient",
        *sorted(set(found["note"]) - {""}),
        "of many pairs, those with "
        + "training without privacy or with " * bool(ordinary & set(found["first"]))
        + "the best private mechanism"
        if sum(map(len, parts)) < len(found)
        else "",
    )
    return figure


def numbers(comparisons: pd.DataFrame) -> str:
    """How many comparisons have which verdict."""
    counts = utility.scored(comparisons)["verdict"].value_counts()
    if counts.empty:
        return ""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Of {counts.sum()} comparisons: {verdicts}."


def chosen(found: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """All comparisons of a model; of more than `MOST` pairs, those with training without privacy
    or with the private mechanism that has the highest mean of its `scores`."""
    if len(_pairs(found)) <= MOST:
        return found
    private = scores[(scores["privacy"] != "none") & scores["model"].isin(found["model"])]
    best = private.groupby("mechanism")["value"].mean().idxmax()
    ordinary = ~found["first"].isin(private["mechanism"])
    kept = found[ordinary | (found["first"] == best) | (found["second"] == best)]
    kept.attrs = found.attrs
    return kept


def _pairs(found: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(found["first"], found["second"], strict=True)))


def _rows(axes: Axes, part: pd.DataFrame, levels: list[str]) -> None:
    colours = palette.colours(part.assign(mechanism=part["second"]))
    rows = _pairs(part)
    for y, (first, second) in enumerate(rows):
        of_pair = part[(part["first"] == first) & (part["second"] == second)]
        for row in of_pair.itertuples():
            rank = levels.index(row.privacy)
            at = y + 0.7 * ((rank + 0.5) / len(levels) - 0.5)
            tint = palette.shade(colours[second], rank, len(levels))
            axes.hlines(at, row.low, row.high, color=tint, linewidth=1)
            mark = next(_mark(name, tint) for name in MARKS if row.verdict in MARKS[name][0])
            axes.plot(
                row.difference, at, color=tint, label=f"{first}/{second}/{row.privacy}", **mark
            )
        axes.text(
            1.01, y, _words(of_pair["verdict"]), transform=axes.get_yaxis_transform(),
            va="center", fontsize=style.SMALL, color=style.MUTED,
        )  # fmt: skip
    names = [f"{wording.name(second)} − {wording.name(first)}" for first, second in rows]
    if max(map(len, names)) > LONG:
        names = [name.replace(" − ", "\n− ") for name in names]
    axes.axvline(0, color=style.MUTED, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _mark(name: str, colour: str) -> dict[str, object]:
    _, marker, filled = MARKS[name]
    return {"marker": marker, "markerfacecolor": colour if filled else "white"}


def _words(verdicts: pd.Series) -> str:
    """ "lower", or "2 lower, 1 cannot be separated" where noise levels differ."""
    counts = verdicts.value_counts()
    if len(counts) == 1:
        return counts.index[0]
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
