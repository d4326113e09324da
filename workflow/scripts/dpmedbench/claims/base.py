"""What a claim is, how it is judged, and the statistics that claims share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dpmedbench import statistics
from dpmedbench.evaluation import RUN, independent
from dpmedbench.results import CELL, SETTING, Results
from dpmedbench.statistics import CONFIDENCE
from dpmedbench.summary import NOTHING, text
from dpmedbench.verdicts import CONTRADICTED, NOT_RUN, SUPPORTED, UNCLEAR

SAME = 0.01  # epsilons within 1 % are equal
WITHIN = ["dataset", "model"]
CONTEXT = [*WITHIN, "privacy"]
CONTROL = "control"  # how the source of a claim begins that no study makes
OVER_NOISE = "Epsilon at the higher noise is {} times that at the lower."
MEASURED_ON = "device"  # what times and memory are paired on too


class Estimate(NamedTuple):
    """A statistic, the ends of its interval (NaN: none), and of what it was taken, in words."""

    value: float
    low: float
    high: float
    of: str


class Finding(NamedTuple):
    """What was found: a sentence with {} for the estimate, the estimate, and the verdict."""

    sentence: str
    estimate: Estimate
    verdict: str

    def __str__(self) -> str:
        interval = "" if math.isfinite(self.estimate.low) else ", no interval"
        words = self.sentence.removesuffix(".").format(text(*self.estimate[:3]))
        return f"{words} ({self.estimate.of}{interval})."


@dataclass(frozen=True)
class Claim:
    """A published claim or a control; `decide` finds None where what it takes was not run."""

    id: str
    study: str
    source: str
    claim: str
    statistic: str
    decide: Callable[[Results], Finding | None]

    def row(self, results: Results) -> dict[str, object]:
        """The row of the table."""
        found = self.decide(results)
        value, low, high, _ = found.estimate if found else (math.nan, math.nan, math.nan, "")
        return {
            "id": self.id,
            "study": self.study,
            "source": self.source,
            "claim": self.claim,
            "statistic": self.statistic,
            "finding": str(found) if found else "",
            "value": value,
            "low": low,
            "high": high,
            "verdict": found.verdict if found else NOT_RUN,
        }


def claim(
    source: str, sentence: str, statistic: str, each: Mapping[str, Sequence[str]] | None = None
) -> Callable:
    """Make a claim of a function of the results: its id is study.name.

    With `each`, a tuple of claims, one of each of its keys: the function takes the key first, the
    id ends in it, and its words stand for the {} of the sentence and the statistic.
    """

    def of(decide: Callable) -> Claim | tuple[Claim, ...]:
        study = decide.__module__.split(".")[2]
        name = f"{study}.{decide.__name__}"
        if each is None:
            return Claim(name, study, source, sentence, statistic, decide)
        return tuple(
            Claim(
                f"{name}_{key}",
                study,
                source,
                sentence.format(*words),
                statistic.format(*words),
                functools.partial(decide, key),
            )
            for key, words in each.items()
        )

    return of


def control(section: str) -> str:
    """The source of a claim that is ours."""
    return f"{CONTROL} of {section}, not in the study"


def judge(estimate: Estimate, above: float = -math.inf, below: float = math.inf) -> str:
    """Whether a statistic is between `above` and `below`, as claimed.

    "supported" where its interval is within, "contradicted" where the interval is without, and
    "cannot be separated" where it is neither or there is none.
    """
    low, high = (0.0 if abs(end) < NOTHING else end for end in estimate[1:3])
    if low > above and high < below:
        return SUPPORTED
    return CONTRADICTED if high <= above or low >= below else UNCLEAR


def conclude(
    sentence: str,
    estimate: Estimate | None,
    above: float = -math.inf,
    below: float = math.inf,
) -> Finding | None:
    """The finding on "the statistic is between `above` and `below`"; None without a statistic.
    `sentence` has {} for it."""
    return estimate and Finding(sentence, estimate, judge(estimate, above, below))


def conclude_each(
    sentence: str,
    frame: pd.DataFrame,
    statistic: Callable[..., Estimate | None],
    by: Sequence[str] = WITHIN,
    above: float = -math.inf,
    below: float = math.inf,
) -> Finding | None:
    """The finding on "in each part the statistic is between `above` and `below`"; None without one.

    Args:
        statistic: of the rows of a part, which agree in `by`; takes the confidence of its interval.

    "supported" where it is so in every part, each at 95 %; "contradicted" where it is not so in
    one, at a level corrected for their number (Bonferroni), as one in many is off by chance. Of
    the parts that decide it, the one that fits least is shown, at the level that decides.
    """
    parts = {", ".join(map(str, name)): rows for name, rows in frame.groupby(by)}
    found = {name: statistic(rows, confidence=CONFIDENCE) for name, rows in parts.items()}
    found = {name: one for name, one in found.items() if one}
    if not found:
        return None
    level = 1 - (1 - CONFIDENCE) / len(found)
    open_ = [name for name, one in found.items() if judge(one, above, below) != SUPPORTED]
    wider = {name: statistic(parts[name], confidence=level) for name in open_}
    against = {name: one for name, one in wider.items() if judge(one, above, below) == CONTRADICTED}
    shown = against or wider or found
    least = min(shown, key=lambda name: min(shown[name].value - above, below - shown[name].value))
    estimate = shown[least]
    if len(found) > 1:
        estimate = estimate._replace(of=f"{least}, which fits least of {len(found)}: {estimate.of}")
    return conclude(sentence, estimate, above, below)


def paired(
    first: pd.DataFrame, second: pd.DataFrame, value: str, on: Sequence[str]
) -> pd.DataFrame:
    """Pairs of values, "first" and "second", of cells (or their patients) that agree in `on`.

    Also "run" and "setting", which number the runs and everything else that tells pairs apart, and
    "patient", numbers of the patients: names are those of one dataset.
    """
    patients = ["patient"] if "patient" in first else []
    keys = [*on, *RUN, *patients]
    names = [name for name in SETTING if name not in keys]
    sides = [  # a name that only one side has is not the other's
        side.rename(columns={name: f"{name}{end}" for name in names})
        for side, end in ((first, "_1"), (second, "_2"))
    ]
    pairs = sides[0].merge(sides[1], on=keys, suffixes=("_1", "_2"))
    pairs = pairs.dropna(subset=[f"{value}_1", f"{value}_2"])
    telling = [f"{name}{end}" for name in SETTING for end in ("", "_1", "_2")]
    return pairs.assign(
        first=pairs[f"{value}_1"],
        second=pairs[f"{value}_2"],
        run=pairs.groupby(RUN).ngroup(),
        setting=pairs.groupby(pairs.columns.intersection(telling).tolist()).ngroup(),
        **{unit: pairs.groupby(["dataset", unit]).ngroup() for unit in patients},
    )


def mean(pairs: pd.DataFrame, effect: pd.Series, confidence: float = CONFIDENCE) -> Estimate | None:
    """The mean effect over pairs, None where there are none: over the patients of a run, the runs
    of a setting, and the settings.

    Chance draws runs and patients or, where all are of one run, the settings that share no cell:
    the luck of one training is in every setting that is held against it.
    """
    if pairs.empty:
        return None
    runs = pairs["run"].nunique()
    level, drawn = ("run", independent(pairs)) if runs > 1 else ("setting", _connected(pairs))
    pairs = pairs.assign(effect=effect, drawn=drawn)
    patients = {unit: unit for unit in ("patient",) if unit in pairs}
    units = {level: "drawn"} | (patients if len(set(pairs["drawn"])) > 1 else {})
    levels = [*patients, "run", "setting"]
    found = statistics.mean_interval(pairs, "effect", levels, units, confidence)
    of = [extent(pairs), *(_several(pairs[unit], unit) for unit in patients)]
    return Estimate(*found, ", ".join(of))


def ratio(pairs: pd.DataFrame, confidence: float = CONFIDENCE) -> Estimate | None:
    """The geometric mean of second / first."""
    found = mean(pairs, np.log(pairs["second"] / pairs["first"]), confidence)
    return found and Estimate(*np.exp(found[:3]).tolist(), found.of)


def difference(pairs: pd.DataFrame, confidence: float = CONFIDENCE) -> Estimate | None:
    """The mean of second - first."""
    return mean(pairs, pairs["second"] - pairs["first"], confidence)


def largest(pairs: pd.DataFrame) -> Estimate | None:
    """The mean of second - first in the setting where it is largest; the interval, over the runs
    of each, allows for the choice."""
    if pairs.empty:
        return None
    effects = pairs.assign(effect=pairs["second"] - pairs["first"])
    effects = effects.groupby(["setting", independent(pairs)], as_index=False)["effect"].mean()
    found = statistics.largest_mean(effects, "effect", "setting")
    return Estimate(*found, f"largest of {extent(pairs)}")


def spread(values: pd.Series, of: str) -> Estimate | None:
    """The mean of numbers without chance in them, with the least and the largest as interval."""
    return None if values.empty else Estimate(values.mean(), values.min(), values.max(), of)


def over_noise(cells: pd.DataFrame) -> Estimate | None:
    """Epsilon at each noise over that at the next lower one of the same mechanism, mean and
    range."""
    levels = cells.groupby([*WITHIN, "mechanism", "noise_multiplier"])["epsilon"].mean()
    ratios = (levels / levels.groupby(level=[0, 1, 2]).shift()).dropna()
    return spread(ratios, f"{len(ratios)} pairs of noise levels")


def trend(
    cells: pd.DataFrame,
    value: str,
    over: str,
    also: Sequence[str] = (),
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """The slope of `value` over a column, each dataset, model, mechanism and run (and value of the
    columns `also`) on a level of its own; None where the column does not vary. Chance draws runs
    or, where all are of one, what is left of the values beside the slope."""
    cells = cells.dropna(subset=[value, over])
    levels = ["dataset", "model", "mechanism", *RUN, *also]
    found = statistics.slope(cells, value, over, levels, independent(cells), confidence)
    if math.isnan(found[0]):
        return None
    settings = cells[SETTING].drop_duplicates()
    return Estimate(*found, _of(len(cells[RUN].drop_duplicates()), len(settings)))


def _connected(pairs: pd.DataFrame) -> np.ndarray:
    """A number for each pair, the same for those that a chain of shared cells connects."""
    sides = (
        pairs.reindex(columns=[name if name in pairs else f"{name}{end}" for name in CELL])
        for end in ("_1", "_2")
    )
    cells = np.concatenate([side.to_numpy(str) for side in sides])
    one, other = np.unique(cells, axis=0, return_inverse=True)[1].reshape(2, -1)
    shared = coo_matrix((np.ones(len(one)), (one, other)), (len(cells), len(cells)))
    return connected_components(shared, directed=False)[1][one]


def extent(pairs: pd.DataFrame) -> str:
    """Of how many settings and runs the pairs are, in words."""
    return _of(pairs["run"].nunique(), pairs["setting"].nunique())


def _of(runs: int, settings: int) -> str:
    of = _several(range(settings), "setting")
    return f"{of}, single runs" if runs == 1 else f"{of}, {runs} runs"


def _several(units: Iterable, name: str) -> str:
    number = len(set(units))
    return f"{number} {name}{'s' * (number > 1)}"
