"""Pairs of mechanisms, compared on the same patients and runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from dpmedbench import statistics
from dpmedbench.evaluation import RUN, independent
from dpmedbench.results import SETTING, Results
from dpmedbench.verdicts import HIGHER, LOWER, SINGLE, UNCLEAR

COLUMNS = [
    "dataset",
    "model",
    "privacy",
    "first",
    "second",
    "metric",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "pairs",
    "runs",
    "test",
    "verdict",
    "note",
]
FAMILY = ["dataset", "model", "privacy"]  # of comparisons that are corrected together
LEVEL = 0.05
TEST = "sign-flip permutation test and Student's of the interval, the larger p"
FEW = "too few pairs: no result could be separated from chance after the correction"
ONE_SIDED = "patients left out of a run, where only one of the two has a score for them: {}"


def table(results: Results) -> pd.DataFrame:
    """`COLUMNS`, a row a pair and metric.

    Private mechanisms are compared at the same noise, and each with those that are not private;
    `privacy` is the noise of the private ones. The metrics are the primary one of the test set
    (`Results.primary`), paired by patient: `pairs` of them, and "step_seconds", paired by run. Of
    both only the runs (folds and seeds) that both mechanisms have count, of "step_seconds" those
    on the same device.

    `difference` is `second` minus `first`, the mean over runs of the mean over patients; `low` and
    `high` are the ends of its 95 % interval over patients and runs (`statistics.interval`). `p` is
    the larger of that of a paired permutation test, which needs no normal distribution but takes
    the luck of two trainings for a difference, and of Student's of the interval, which does
    neither. `p_holm` is that of Holm over all comparisons of either kind of one dataset, network
    and noise: among what a mechanism is chosen. `verdict`: "higher" or "lower" where `p_holm` is
    below 0.05, "cannot be separated" where not, and "single runs" where there is one run of each,
    which says nothing of the next. `note` says how many patients only one of the two has a score
    for in a run of both, which leaves them out, and where, beside the other p, no result of these
    pairs could have had a `p_holm` below 0.05.
    """
    by_patient = _values(results.test_scores, [*RUN, "patient"])
    seconds = results.cells.assign(score=results.cells["step_seconds"])
    by_run = _values(seconds.assign(part=seconds["score"]), [*RUN, "device"])
    pairs = list(_pairs(results.cells))
    rows = [_compared(*pair, by_patient, results.primary(pair[0][0])) for pair in pairs]
    rows += [_compared(*pair, by_run, "step_seconds") for pair in pairs]
    frame = pd.DataFrame([row for row in rows if row], columns=COLUMNS)
    for _, family in frame.groupby([*FAMILY, frame["metric"] == "step_seconds"]):
        frame.loc[family.index, "p_holm"] = statistics.holm(family["p"])
        least = family["pairs"].map(statistics.smallest)
        # what Holm multiplies it with; where one pair has no p, it has no result either
        times = [max(1, (family["p"] >= p).sum()) for p in least]
        few = (family["runs"] > 1) & (least * times >= LEVEL)
        notes = family.loc[few, "note"]
        frame.loc[notes.index, "note"] = notes.where(notes == "", notes + "; ") + FEW
    separated = frame["p_holm"] < LEVEL
    verdicts = {
        SINGLE: frame["runs"] == 1,
        HIGHER: separated & (frame["difference"] > 0),
        LOWER: separated & (frame["difference"] < 0),
    }
    return frame.assign(verdict=np.select(list(verdicts.values()), list(verdicts), UNCLEAR))


def _values(frame: pd.DataFrame, units: list[str]) -> dict[tuple, pd.DataFrame]:
    """The scores and parts of each setting by unit."""
    groups = frame.set_index(units).groupby(SETTING, sort=False)
    return {setting: values[["score", "part"]] for setting, values in groups}


def _pairs(cells: pd.DataFrame) -> Iterator[tuple[tuple, tuple]]:
    """The settings of every comparison, the first and the second."""
    for _, part in cells[SETTING].drop_duplicates().groupby(["dataset", "model"], sort=False):
        settings = list(part.itertuples(index=False, name=None))
        ordinary = [setting for setting in settings if setting[3] == "none"]
        private = [setting for setting in settings if setting[3] != "none"]
        yield from itertools.product(ordinary, private)
        for one, other in itertools.combinations(private, 2):
            if one[3] == other[3]:
                yield one, other


def _compared(
    first: tuple, second: tuple, values: dict[tuple, pd.DataFrame], metric: str
) -> dict[str, object] | None:
    """A row without what depends on other rows; None where the two share no unit."""
    if first not in values or second not in values:
        return None
    differences = values[second] - values[first]  # NaN where only one of the two has the unit
    frame = differences.dropna().reset_index()
    if frame.empty:
        return None
    frame = frame.assign(run=frame.groupby(RUN).ngroup(), drawn=independent(frame))
    unit = "patient" if "patient" in frame else "run"
    alone = (
        differences[differences["score"].isna()].reset_index().merge(frame[RUN].drop_duplicates())
    )
    left_out = alone["patient"].nunique() if unit == "patient" else 0
    of_run = frame.groupby("run")["part"].transform("size")
    of_unit = (frame["part"] / of_run).groupby(frame[unit]).sum()  # their sum: runs x difference
    runs = frame["run"].nunique()
    value, low, high, p = frame["score"].mean(), math.nan, math.nan, math.nan
    if runs > 1:
        levels = list(dict.fromkeys((unit, "run")))
        of = frame, "score", levels, dict.fromkeys(levels, "patient") | {"run": "drawn"}
        value, low, high = statistics.mean_interval(*of)
        p = float(np.maximum(statistics.paired_test(of_unit), statistics.mean_test(*of)))
    dataset, model, mechanism, privacy = second
    return {
        "dataset": dataset,
        "model": model,
        "privacy": privacy,
        "first": first[2],
        "second": mechanism,
        "metric": metric,
        "difference": value,
        "low": low,
        "high": high,
        "p": p,
        "pairs": len(of_unit),
        "runs": runs,
        "test": TEST,
        "note": ONE_SIDED.format(left_out) if left_out else "",
    }
