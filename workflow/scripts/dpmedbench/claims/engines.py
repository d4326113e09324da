"""Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost", and
Yousefpour et al. 2021, "Opacus: User-Friendly Differential Privacy Library in PyTorch"."""

from __future__ import annotations

import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT, Finding, claim
from dpmedbench.results import Results

WITHIN = ["dataset", "model", base.MEASURED_ON]
AT_NOISE = [*CONTEXT, base.MEASURED_ON]
CLOSE = 1.2


@claim(
    "Book-Keeping, conclusion: time complexity",
    "Book-Keeping takes about as much time as ordinary training.",
    "Median step time of Book-Keeping, in its fastest mode, over that of ordinary training of the "
    "same network on the same device, geometric mean; about as much means below 1.2.",
)
def time(results: Results) -> Finding | None:
    return _like_ordinary(
        results, "step_seconds", "Book-Keeping takes {} times as long as ordinary training."
    )


@claim(
    "Book-Keeping, conclusion: space complexity",
    "Book-Keeping takes about as much memory as ordinary training.",
    "Peak memory of Book-Keeping, in its leanest mode, over that of ordinary training of the same "
    "network on the same device, geometric mean; about as much means below 1.2.",
)
def memory(results: Results) -> Finding | None:
    return _like_ordinary(
        results, "peak_bytes", "Book-Keeping takes {} times the memory of ordinary training."
    )


@claim(
    "Book-Keeping, abstract",
    "Book-Keeping is faster than Opacus, FastGradClip and GhostClip.",
    "Median step time of the fastest of the three over that of Book-Keeping in its fastest mode at "
    "the same dataset, network and noise on the same device, geometric mean.",
)
def faster(results: Results) -> Finding | None:
    return _like_rivals(
        results, "step_seconds", "The fastest of them takes {} times as long as Book-Keeping."
    )


@claim(
    "Book-Keeping, abstract",
    "Book-Keeping takes less memory than Opacus, FastGradClip and GhostClip.",
    "Peak memory of the leanest of the three over that of Book-Keeping in its leanest mode at the "
    "same dataset, network and noise on the same device, geometric mean.",
)
def leaner(results: Results) -> Finding | None:
    return _like_rivals(
        results, "peak_bytes", "The leanest of them takes {} times the memory of Book-Keeping."
    )


@claim(
    "Opacus, results",
    "Opacus takes 2 to 2.9 times as long as ordinary training on most tasks.",
    "Median step time of Opacus, in its fastest mode, over that of ordinary training of the same "
    "network on the same device, geometric mean.",
)
def opacus_overhead(results: Results) -> Finding | None:
    cells = results.cells
    least = _least(ways.opacus(cells), "step_seconds")
    pairs = base.paired(ways.ordinary(cells), least, "step_seconds", WITHIN)
    found = base.ratio(pairs)
    return base.conclude("Opacus takes {} times as long as ordinary training.", found, 2, 2.9)


def _like_ordinary(results: Results, value: str, words: str) -> Finding | None:
    cells = results.cells
    least = _least(ways.book_keeping(cells), value)
    pairs = base.paired(ways.ordinary(cells), least, value, WITHIN)
    found = base.ratio(pairs)
    return base.conclude(words, found, below=CLOSE)


def _like_rivals(results: Results, value: str, words: str) -> Finding | None:
    cells = results.cells
    ours, theirs = (_least(way(cells), value) for way in (ways.book_keeping, ways.rivals))
    pairs = base.paired(ours, theirs, value, AT_NOISE)
    found = base.ratio(pairs)
    return base.conclude(words, found, above=1)


def _least(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Of the settings of each network, noise and device, the one with the least mean."""
    means = cells.groupby([*AT_NOISE, "mechanism"])[value].mean()
    least = means.groupby(level=AT_NOISE).idxmin()
    names = pd.DataFrame(least.tolist(), columns=[*AT_NOISE, "mechanism"])
    return cells.merge(names)
