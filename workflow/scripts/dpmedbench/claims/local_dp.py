"""Singh et al. 2020, "Benchmarking Differentially Private Residual Networks for Medical
Imagery"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Finding, claim
from dpmedbench.results import CELL, Results

MARGIN = 0.02
LOCAL, DP_SGD = "beta", "noise_multiplier"


@claim(
    "Results, Figure 4",
    "With local noise the training accuracy drops as beta rises.",
    "Least-squares slope of the training accuracy of the last epoch over log2 beta, a level each "
    "mechanism and run.",
)
def training_accuracy(results: Results) -> Finding | None:
    if "train_accuracy" not in results.cells:
        return None
    cells = _levels(ways.local(results.cells), LOCAL)
    found = base.trend(cells, "train_accuracy", "level")
    return base.conclude("Doubling beta changes the training accuracy by {}.", found, below=0)


@claim(
    "Results, Figure 4; Conclusion",
    "With local noise the test accuracy does not change much with beta.",
    "Least-squares slope of the balanced test accuracy of the last epoch over log2 beta, a level "
    "each mechanism and run; not much means within 0.02 a doubling.",
)
def test_accuracy(results: Results) -> Finding | None:
    found = _test_trend(results, ways.local(results.cells), LOCAL)
    return base.conclude("Doubling beta changes the test accuracy by {}.", found, -MARGIN, MARGIN)


@claim(
    "Conclusion",
    "With DP-SGD the accuracy declines as the noise rises.",
    "Least-squares slope of the balanced test accuracy of the last epoch over log2 of the noise "
    "multiplier, a level each mechanism and run.",
)
def noise(results: Results) -> Finding | None:
    found = _test_trend(results, ways.with_noise(ways.dp_sgd(results.cells)), DP_SGD)
    return base.conclude("Doubling the noise changes the test accuracy by {}.", found, below=0)


@claim(
    "Results, Figure 4",
    "DP-SGD loses more test accuracy than local noise of the same number.",
    "Balanced test accuracy with local noise of scale beta minus that of DP-SGD with the noise "
    "multiplier beta, over patients.",
)
def local_better(results: Results) -> Finding | None:
    scores = results.test_scores
    first, second = (
        scores.merge(_levels(way(results.cells), level)[[*CELL, "level"]])
        for way, level in ((ways.dp_sgd, DP_SGD), (ways.local, LOCAL))
    )
    pairs = base.paired(first, second, "score", ["dataset", "model", "level"])
    found = base.difference(pairs)
    return base.conclude("With local noise the test accuracy is higher by {}.", found, above=0)


def _levels(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    return cells.assign(level=np.log2(cells[column].astype(float)))


def _test_trend(results: Results, cells: pd.DataFrame, column: str) -> base.Estimate | None:
    cells = cells[cells["dataset"].map(results.primary) == "balanced_accuracy"]
    means = results.test_scores.groupby(CELL)["score"].mean().reset_index()
    return base.trend(_levels(cells, column).merge(means, on=CELL), "score", "level")
