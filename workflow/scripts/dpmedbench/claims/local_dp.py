"""Singh et al. 2020, "Benchmarking Differentially Private Residual Networks for Medical
Imagery"."""

from __future__ import annotations

import functools
import math

import numpy as np
import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Finding, claim
from dpmedbench.results import CELL, SETTING, Results

MARGIN = 0.02
LOCAL = {
    "laplace": ("local noise (on every pixel)",),
    "scalar": ("local noise (one number an image)",),  # as in the code of the study
}
NOISES = LOCAL | {"dp_sgd": ("DP-SGD",)}
WAYS = {
    "laplace": (ways.laplace, "beta"),
    "scalar": (ways.scalar, "beta"),
    "dp_sgd": (ways.dp_sgd, "noise_multiplier"),
}
BEST = {"train": "train_accuracy_best", "test": "test_accuracy_best"}  # published; images count
TESTED = "test accuracy of the best epoch (chosen on it, as published)"
BALANCED = "balanced test accuracy of the last epoch"  # which is not published
SLOPE = (
    "Least-squares slope of the {} with {{}} over log2 of the noise (beta, or the noise "
    "multiplier), a level each mechanism and run"
)
EACH = f"{SLOPE}, in each dataset and network"
POOLED = f"{SLOPE}, one slope for all datasets and networks."
CHANGE = "Doubling the noise changes the accuracy by {}."
TREND = functools.partial(base.trend, value="accuracy", over="level")
BETTER = "With local noise the test accuracy is higher by {}."


@claim(
    "Results, Figure 4",
    "With {} the training accuracy drops as the noise rises.",
    f"{EACH.format('training accuracy of the best epoch')}.",
    NOISES,
)
def training_accuracy(noise: str, results: Results) -> Finding | None:
    cells = _accurate(_noised(noise, results), "train")
    return base.conclude_each(CHANGE, cells, TREND, below=0)


@claim(
    "Results, Figure 4; Conclusion",
    "With {} the test accuracy does not change much with the noise.",
    f"{EACH.format(TESTED)}; not much means within 0.02 a doubling.",
    NOISES,
)
def test_accuracy(noise: str, results: Results) -> Finding | None:
    cells = _accurate(_noised(noise, results), "test")
    return base.conclude_each(CHANGE, cells, TREND, above=-MARGIN, below=MARGIN)


@claim(
    base.control("Figure 4"),
    "Control: with {} the balanced test accuracy does not change much with the noise.",
    f"{EACH.format(BALANCED)}; not much means within 0.02 a doubling.",
    NOISES,
)
def test_accuracy_balanced(noise: str, results: Results) -> Finding | None:
    cells = _balanced(noise, results)
    return base.conclude_each(CHANGE, cells, TREND, above=-MARGIN, below=MARGIN)


@claim(
    "Conclusion",
    "With {} the test accuracy declines as the noise rises.",
    POOLED.format(TESTED),
    NOISES,
)
def decline(noise: str, results: Results) -> Finding | None:
    cells = _accurate(_noised(noise, results), "test")
    return base.conclude(CHANGE, TREND(cells), below=0)


@claim(
    base.control("the Conclusion"),
    "Control: with {} the balanced test accuracy declines as the noise rises.",
    POOLED.format(BALANCED),
    NOISES,
)
def decline_balanced(noise: str, results: Results) -> Finding | None:
    return base.conclude(CHANGE, TREND(_balanced(noise, results)), below=0)


@claim(
    f"{base.CONTROL}, read off Figure 4, not stated",
    "Control: DP-SGD loses more test accuracy than {} at the same beta.",
    "Test accuracy of the best epoch (chosen on it, as published) with {} of scale beta minus that "
    "of DP-SGD with the noise multiplier beta, mean over settings.",
    LOCAL,
)
def local_better(noise: str, results: Results) -> Finding | None:
    pair = (_accurate(_noised(name, results), "test") for name in ("dp_sgd", noise))
    found = base.difference(base.paired(*pair, "accuracy", ["dataset", "model", "level"]))
    return base.conclude(BETTER, found, above=0)


@claim(
    base.control("Figure 4"),
    "Control: DP-SGD loses more balanced test accuracy than {} at the same beta.",
    "Balanced test accuracy of the last epoch with {} of scale beta minus that of DP-SGD with the "
    "noise multiplier beta, mean over patients and settings.",
    LOCAL,
)
def local_better_balanced(noise: str, results: Results) -> Finding | None:
    pair = (
        results.test_scores.merge(_classified(_noised(name, results), results)[[*CELL, "level"]])
        for name in ("dp_sgd", noise)
    )
    found = base.difference(base.paired(*pair, "score", ["dataset", "model", "level"]))
    return base.conclude(BETTER, found, above=0)


@claim(
    "Conclusion, Figure 4",
    "In some cases the training accuracy is below the test accuracy.",
    "Accuracy on the test images minus that on the training images, each of its best epoch, as "
    "published, with local noise or DP-SGD in the setting where it is largest; the interval allows "
    "for the choice.",
)
def below_test_accuracy(results: Results) -> Finding | None:
    cells = pd.concat([_noised(noise, results) for noise in NOISES])
    pair = (_accurate(cells, part) for part in BEST)
    found = base.largest(base.paired(*pair, "accuracy", SETTING))
    return base.conclude("The test accuracy is higher by {}.", found, above=0)


def _noised(noise: str, results: Results) -> pd.DataFrame:
    """The cells with a kind of noise, and its "level"."""
    way, column = WAYS[noise]
    cells = ways.with_noise(way(results.cells))
    return cells.assign(level=np.log2(cells[column].astype(float)))


def _accurate(cells: pd.DataFrame, part: str) -> pd.DataFrame:
    """The cells with their published "accuracy", NaN where nothing is classified."""
    return cells.assign(accuracy=cells.get(BEST[part], math.nan))


def _classified(cells: pd.DataFrame, results: Results) -> pd.DataFrame:
    return cells[cells["dataset"].map(results.primary) == "balanced_accuracy"]


def _balanced(noise: str, results: Results) -> pd.DataFrame:
    """The cells with a kind of noise that classify, with their balanced "accuracy"."""
    scores = results.test_scores.groupby(CELL)["score"].mean().rename("accuracy").reset_index()
    return _classified(_noised(noise, results), results).merge(scores, on=CELL)
