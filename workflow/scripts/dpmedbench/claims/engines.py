"""Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost", and
Yousefpour et al. 2021, "Opacus: User-Friendly Differential Privacy Library in PyTorch"."""

from __future__ import annotations

import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT, Estimate, Finding, claim
from dpmedbench.claims.ways import ENGINES
from dpmedbench.evaluation import RUN
from dpmedbench.results import Results

WITHIN = ["dataset", "model", base.MEASURED_ON]
AT_NOISE = [*CONTEXT, base.MEASURED_ON]
CLOSE = 1.2
TENFOLD = 8  # within 20 %, as "double" is
OWN = "Book-Keeping by {}, flat and in the {} of its published modes in each run,"
CITED = "Book-Keeping, as cited by Shandilya, Section IV.B"


@claim(
    "Book-Keeping, conclusion: time complexity",
    "Book-Keeping ({}) takes about as much time as ordinary training.",
    f"Median step time of {OWN.format('{}', 'fastest')} over that of ordinary training of the "
    "same network on the same device, geometric mean over settings; about as much means below 1.2.",
    ENGINES,
)
def time(engine: str, results: Results) -> Finding | None:
    words = "Book-Keeping ({}) takes {{}} times as long as ordinary training."
    return _like_ordinary(engine, results, "step_seconds", words)


@claim(
    "Book-Keeping, conclusion: space complexity",
    "Book-Keeping ({}) takes about as much memory as ordinary training.",
    f"Peak memory on a GPU of {OWN.format('{}', 'leanest')} over that of ordinary training of the "
    "same network, geometric mean over settings; about as much means below 1.2.",
    ENGINES,
)
def memory(engine: str, results: Results) -> Finding | None:
    words = "Book-Keeping ({}) takes {{}} times the memory of ordinary training."
    return _like_ordinary(engine, results, "peak_gpu_bytes", words)


@claim(
    "Book-Keeping, abstract",
    "Book-Keeping ({}) is faster than Opacus, FastGradClip and GhostClip.",
    f"Median step time of the fastest of the three over that of {OWN.format('{}', 'fastest')} at "
    "the same dataset, network and noise on the same device, geometric mean over settings.",
    ENGINES,
)
def faster(engine: str, results: Results) -> Finding | None:
    words = "The fastest of them ({}) takes {{}} times as long as Book-Keeping ({})."
    return _like_rivals(engine, results, "step_seconds", words)


@claim(
    "Book-Keeping, abstract",
    "Book-Keeping ({}) takes less memory than Opacus, FastGradClip and GhostClip.",
    f"Peak memory on a GPU of the leanest of the three over that of {OWN.format('{}', 'leanest')} "
    "at the same dataset, network and noise, geometric mean over settings.",
    ENGINES,
)
def leaner(engine: str, results: Results) -> Finding | None:
    words = "The leanest of them ({}) takes {{}} times the memory of Book-Keeping ({})."
    return _like_rivals(engine, results, "peak_gpu_bytes", words)


@claim(
    CITED,
    "Book-Keeping ({}) is 30 % to 5 times faster than implementations before it.",
    "Median step time of each flat mode of Opacus, FastGradClip and GhostClip over that of "
    f"{OWN.format('{}', 'fastest')} at the same dataset, network and noise on the same device, "
    "geometric mean over settings; as claimed means from 1.3 to 5.",
    ENGINES,
)
def speed(engine: str, results: Results) -> Finding | None:
    pairs = _before(engine, results, "step_seconds")
    words = f"They take {{}} times as long as Book-Keeping ({_names(pairs['least'])})."
    return base.conclude(words, base.ratio(pairs), 1.3, 5)


@claim(
    CITED,
    "Book-Keeping ({}) saves up to 10 times the memory of implementations before it.",
    "Peak memory on a GPU of each flat mode of Opacus, FastGradClip and GhostClip over that of "
    f"{OWN.format('{}', 'leanest')} at the same dataset, network and noise, in the setting where "
    "it is largest, mean and range over runs; up to 10 times means above 8.",
    ENGINES,
)
def saving(engine: str, results: Results) -> Finding | None:
    pairs = _before(engine, results, "peak_gpu_bytes")
    ratios = (pairs["second"] / pairs["first"]).groupby(pairs["setting"])
    settings = ratios.agg(["mean", "min", "max"])  # memory has hardly any chance in it
    found = None
    if len(pairs):
        most = settings.loc[settings["mean"].idxmax()]
        found = Estimate(*most, f"largest of {base.extent(pairs)}")
    words = f"They take up to {{}} times the memory of Book-Keeping ({_names(pairs['least'])})."
    return base.conclude(words, found, above=TENFOLD)


@claim(
    "Book-Keeping, existing solutions",
    "GhostClip doubles the time of ordinary training.",
    "Median step time of GhostClip over that of ordinary training of the same network on the same "
    "device, geometric mean over settings; double means within 20 %.",
)
def ghost_clip(results: Results) -> Finding | None:
    cells = results.cells
    pairs = base.paired(ways.ordinary(cells), ways.ghost_clip(cells), "step_seconds", WITHIN)
    words = "GhostClip takes {} times as long as ordinary training."
    return base.conclude(words, base.ratio(pairs), 1.6, 2.4)


@claim(
    "Opacus, results",
    "Opacus takes 2 to 2.9 times as long as ordinary training on most tasks.",
    "Median step time of Opacus, in its fastest mode in each run, over that of ordinary training "
    "of the same network on the same device, geometric mean over settings.",
)
def opacus_overhead(results: Results) -> Finding | None:
    cells = results.cells
    least = _least(ways.opacus(cells), "step_seconds")
    pairs = base.paired(ways.ordinary(cells), least, "step_seconds", WITHIN)
    words = f"Opacus ({_names(pairs['least'])}) takes {{}} times as long as ordinary training."
    return base.conclude(words, base.ratio(pairs), 2, 2.9)


def _like_ordinary(engine: str, results: Results, value: str, words: str) -> Finding | None:
    ordinary = ways.ordinary(results.cells)
    pairs = base.paired(ordinary, _own(engine, results, value), value, WITHIN)
    words = words.format(_names(pairs["least"]))
    return base.conclude(words, base.ratio(pairs), below=CLOSE)


def _like_rivals(engine: str, results: Results, value: str, words: str) -> Finding | None:
    rivals = _least(ways.rivals(results.cells), value)
    pairs = base.paired(_own(engine, results, value), rivals, value, AT_NOISE)
    words = words.format(_names(pairs["least_2"]), _names(pairs["least_1"]))
    return base.conclude(words, base.ratio(pairs), above=1)


def _before(engine: str, results: Results, value: str) -> pd.DataFrame:
    return base.paired(_own(engine, results, value), ways.rivals(results.cells), value, AT_NOISE)


def _own(engine: str, results: Results, value: str) -> pd.DataFrame:
    cells = ways.book_keeping(results.cells)
    return _least(cells[cells["engine"] == engine], value)


def _least(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Of each network, noise, run and device the mechanism with the least, its name in "least"."""
    cells = cells.dropna(subset=value)
    cells = cells.loc[cells.groupby([*AT_NOISE, *RUN])[value].idxmin()]
    return cells.rename(columns={"mechanism": "least"})  # a run's choice makes no setting


def _names(mechanisms: pd.Series) -> str:
    return ", ".join(mechanisms.unique())
