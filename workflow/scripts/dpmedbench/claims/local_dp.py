"""Singh et al. 2020, "Benchmarking Differentially Private Residual Networks for Medical
Imagery"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Finding, claim
from dpmedbench.results import CELL, SETTING, Results

MARGIN = 0.02
LOCAL, DP_SGD = "beta", "noise_multiplier"
PARTS = ("train_accuracy", "test_accuracy_last")  # images count, in both


@claim(
    "Results, Figure 4",
    "With local noise the training accuracy drops as beta rises.",
    "Least-squares slope of the training accuracy of the last epoch over log2 beta, a level each "
    "mechanism and run.",
)
def training_accuracy(results: Results) -> Finding | None:
    found = _training_trend(ways.local(results.cells), LOCAL)
    return base.conclude("Doubling beta changes the training accuracy by {}.", found, below=0)


@claim(
    "Results, Figure 4",
    "With DP-SGD the training accuracy drops as the noise rises.",
    "Least-squares slope of the training accuracy of the last epoch over log2 of the noise "
    "multiplier, a level each mechanism and run.",
)
def training_accuracy_dp_sgd(results: Results) -> Finding | None:
    found = _training_trend(ways.with_noise(ways.dp_sgd(results.cells)), DP_SGD)
    return base.conclude("Doubling the noise changes the training accuracy by {}.", found, below=0)


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
    "Results, Figure 4; Conclusion",
    "With DP-SGD the test accuracy does not change much with the noise.",
    "Least-squares slope of the balanced test accuracy of the last epoch over log2 of the noise "
    "multiplier, a level each mechanism and run; not much means within 0.02 a doubling.",
)
def test_accuracy_dp_sgd(results: Results) -> Finding | None:
    found = _test_trend(results, ways.with_noise(ways.dp_sgd(results.cells)), DP_SGD)
    words = "Doubling the noise changes the test accuracy by {}."
    return base.conclude(words, found, -MARGIN, MARGIN)


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
    cells, scores = _classified(results, results.cells), results.test_scores
    first, second = (
        scores.merge(_levels(way(cells), level)[[*CELL, "level"]])
        for way, level in ((ways.dp_sgd, DP_SGD), (ways.local, LOCAL))
    )
    pairs = base.paired(first, second, "score", ["dataset", "model", "level"])
    found = base.difference(pairs)
    return base.conclude("With local noise the test accuracy is higher by {}.", found, above=0)


@claim(
    "Conclusion, Figure 4",
    "In some cases the training accuracy is below the test accuracy.",
    "Accuracy on the test images minus that on the training images, both of the last epoch, with "
    "local noise or DP-SGD in the setting where it is largest.",
)
def below_test_accuracy(results: Results) -> Finding | None:
    cells = results.cells
    if not {*PARTS} <= {*cells}:
        return None
    cells = pd.concat([ways.local(cells), ways.dp_sgd(cells)])
    train, test = (cells.assign(accuracy=cells[name]) for name in PARTS)
    pairs = base.paired(train, test, "accuracy", SETTING)
    means = (pairs["second"] - pairs["first"]).groupby(pairs["setting"]).transform("mean")
    found = base.difference(pairs[means == means.max()])
    return base.conclude("The test accuracy is higher by {}.", found, above=0)


def _classified(results: Results, cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["dataset"].map(results.primary) == "balanced_accuracy"]


def _levels(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    return cells.assign(level=np.log2(cells[column].astype(float)))


def _training_trend(cells: pd.DataFrame, column: str) -> base.Estimate | None:
    if "train_accuracy" not in cells:
        return None
    return base.trend(_levels(cells, column), "train_accuracy", "level")


def _test_trend(results: Results, cells: pd.DataFrame, column: str) -> base.Estimate | None:
    cells = _classified(results, cells)
    means = results.test_scores.groupby(CELL)["score"].mean().reset_index()
    return base.trend(_levels(cells, column).merge(means, on=CELL), "score", "level")
