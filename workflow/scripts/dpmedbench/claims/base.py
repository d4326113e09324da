"""What a claim is, how it is judged, and the statistics that claims share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from dpmedbench import statistics
from dpmedbench.evaluation import RUN
from dpmedbench.results import Results
from dpmedbench.summary import NOTHING, text
from dpmedbench.verdicts import CONTRADICTED, NOT_RUN, SUPPORTED, UNCLEAR

SAME = 0.01  # epsilons within 1 % are equal
CONTEXT = ["dataset", "model", "privacy"]
CONTROL = "control"  # how the source of a claim begins that no study makes
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
    contrary: bool = False,
) -> Finding | None:
    """The finding on "the statistic is between `above` and `below`" or, where `contrary`, that it
    is not; None without a statistic. `sentence` has {} for it."""
    if estimate is None:
        return None
    verdict = judge(estimate, above, below)
    if contrary:
        verdict = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}.get(verdict, verdict)
    return Finding(sentence, estimate, verdict)


def paired(
    first: pd.DataFrame, second: pd.DataFrame, value: str, on: Sequence[str]
) -> pd.DataFrame:
    """Pairs of values, "first" and "second", of cells (or their patients) that agree in `on`.

    Also "run" and "setting", which number the runs and everything else that tells pairs apart, and
    "patient", numbers of the patients: names are those of one dataset.
    """
    patients = ["patient"] if "patient" in first else []
    keys = [*on, *RUN, *patients]
    pairs = first.merge(second, on=keys, suffixes=("_1", "_2"))
    pairs = pairs.dropna(subset=[f"{value}_1", f"{value}_2"])
    telling = [f"{name}{end}" for name in (*CONTEXT, "mechanism") for end in ("", "_1", "_2")]
    return pairs.assign(
        first=pairs[f"{value}_1"],
        second=pairs[f"{value}_2"],
        run=pairs.groupby(RUN).ngroup(),
        setting=pairs.groupby(pairs.columns.intersection(telling).tolist()).ngroup(),
        **{unit: pairs.groupby(["dataset", unit]).ngroup() for unit in patients},
    )


def mean(pairs: pd.DataFrame, effect: pd.Series) -> Estimate | None:
    """The mean effect over pairs, None where there are none: over the patients of a run, the runs
    of a setting, and the settings.

    What is resampled is runs and patients, or, where all are of one run, the settings.
    """
    if pairs.empty:
        return None
    runs, settings = pairs["run"].nunique(), pairs["setting"].nunique()
    patients = ["patient"] if "patient" in pairs else []
    drawn = ["run" if runs > 1 else "setting"]
    if max(runs, settings) > 1:
        drawn += patients
    found = statistics.mean_interval(
        pairs.assign(effect=effect), "effect", [*patients, "run", "setting"], drawn
    )
    return Estimate(*found, _of(runs, settings))


def ratio(pairs: pd.DataFrame) -> Estimate | None:
    """The geometric mean of second / first."""
    found = mean(pairs, np.log(pairs["second"] / pairs["first"]))
    return found and Estimate(*np.exp(found[:3]).tolist(), found.of)


def difference(pairs: pd.DataFrame) -> Estimate | None:
    """The mean of second - first."""
    return mean(pairs, pairs["second"] - pairs["first"])


def largest(pairs: pd.DataFrame) -> Estimate | None:
    """The mean of second - first in the setting where it is largest; the interval, over the runs
    of each, allows for the choice."""
    if pairs.empty:
        return None
    effects = pairs.assign(effect=pairs["second"] - pairs["first"])
    found = statistics.largest_mean(effects, "effect", "setting")
    return Estimate(*found, f"largest of {_of(pairs['run'].nunique(), pairs['setting'].nunique())}")


def spread(values: pd.Series, of: str) -> Estimate | None:
    """The mean of numbers without chance in them, with the least and the largest as interval."""
    return None if values.empty else Estimate(values.mean(), values.min(), values.max(), of)


def trend(cells: pd.DataFrame, value: str, over: str, also: Sequence[str] = ()) -> Estimate | None:
    """The slope of `value` over a column, each dataset, model, mechanism and run (and value of the
    columns `also`) on a level of its own; None where the column does not vary."""
    cells = cells.dropna(subset=[value, over])
    levels = ["dataset", "model", "mechanism", *RUN, *also]
    found = statistics.slope(cells, value, over, levels)
    if math.isnan(found[0]):
        return None
    settings = cells[[*CONTEXT, "mechanism"]].drop_duplicates()
    return Estimate(*found, _of(len(cells[RUN].drop_duplicates()), len(settings)))


def _of(runs: int, settings: int) -> str:
    of = f"{settings} setting{'s' * (settings > 1)}"
    return f"{of}, single runs" if runs == 1 else f"{of}, {runs} runs"
