"""Shandilya, "Balancing Privacy and Performance: A Comparative Study of Gradient Clipping
Techniques in DP-SGD"."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT, WITHIN, Finding, claim
from dpmedbench.evaluation import RUN
from dpmedbench.results import CELL, Results

SMALL, LARGE = "unet", "nested_unet"
ACROSS = ["dataset", "mechanism", "privacy"]
MARGIN, ALIKE = 0.02, 1.1
ACCURACY = "The accuracy with automatic clipping differs by {}."


@claim(
    "Results, training loss",
    "Automatic clipping reaches a lower training loss than ordinary training.",
    "Last training loss with automatic clipping, mean over noise multipliers, minus that of "
    "ordinary training, in each dataset and network.",
)
def training_loss(results: Results) -> Finding | None:
    words = "The loss with automatic clipping differs by {}."
    pairs = _against_ordinary(results.cells, "train_loss")
    return base.conclude_each(words, pairs, base.difference, below=0)


@claim(
    "Results, validation loss",
    "In U-Net automatic clipping reaches a lower validation loss than ordinary training, given "
    "the right noise multiplier.",
    "Last loss on the validation images of the split of ordinary training minus that of automatic "
    "clipping at the noise multiplier where that is most, U-Net; the interval allows for the "
    "choice.",
)
def validation_loss_unet(results: Results) -> Finding | None:
    cells = _network(results.cells, SMALL)
    found = base.largest(
        base.paired(ways.automatic(cells), ways.ordinary(cells), "val_loss", WITHIN)
    )
    return base.conclude("The loss with automatic clipping is lower by {}.", found, above=0)


@claim(
    "Results, validation loss",
    "In Nested U-Net the validation loss of ordinary training stays below that of automatic "
    "clipping.",
    "Last loss on the validation images of the split with automatic clipping, mean over noise "
    "multipliers, minus that of ordinary training, Nested U-Net.",
)
def validation_loss_nested(results: Results) -> Finding | None:
    pairs = _against_ordinary(_network(results.cells, LARGE), "val_loss")
    found = base.difference(pairs)
    return base.conclude("The loss with automatic clipping is higher by {}.", found, above=0)


@claim(
    "Results, training loss",
    "Random sparsification has the highest training loss.",
    "Last training loss with random sparsification minus the higher of those of ordinary training "
    "and automatic clipping at the same noise, mean over noise multipliers, in each dataset and "
    "network.",
)
def sparsification_loss(results: Results) -> Finding | None:
    cells = results.cells
    plain = base.paired(ways.ordinary(cells), ways.sparsified(cells), "train_loss", WITHIN)
    pairs = base.paired(ways.automatic(cells), ways.sparsified(cells), "train_loss", CONTEXT)
    same = pairs.merge(plain[[*WITHIN, *RUN, "first"]].drop_duplicates(), on=[*WITHIN, *RUN])
    same["first"] = same[["first_x", "first_y"]].max(axis=1)
    same = same.rename(columns={"privacy": "noise"})  # all share the ordinary training
    words = "The loss with random sparsification is higher by {}."
    return base.conclude_each(words, same, base.difference, above=0)


@claim(
    "Results, privacy spent",
    "Privacy spent increases with the complexity of the network.",
    "Final epsilon of Nested U-Net over that of U-Net at the same mechanism and noise, mean and "
    "range; more means above 1.01.",
)
def budget_complexity(results: Results) -> Finding | None:
    private = ways.with_noise(results.cells[np.isfinite(results.cells["epsilon"])])
    pairs = base.paired(_network(private, SMALL), _network(private, LARGE), "epsilon", ACROSS)
    found = base.spread(pairs["second"] / pairs["first"], f"{pairs['setting'].nunique()} settings")
    return base.conclude(
        "Nested U-Net spends {} times the epsilon of U-Net.", found, above=1 + base.SAME
    )


@claim(
    "Results, privacy spent",
    "A higher noise multiplier leads to less privacy spent.",
    "Final epsilon at each noise multiplier over that at the next lower one of the same "
    "mechanism, mean and range; less means below 1.",
)
def budget_noise(results: Results) -> Finding | None:
    private = ways.with_noise(results.cells[np.isfinite(results.cells["epsilon"])])
    return base.conclude(base.OVER_NOISE, base.over_noise(private), below=1)


@claim(
    "Results, training time",
    "Nested U-Net takes more time than U-Net.",
    "Seconds per epoch of Nested U-Net over those of U-Net at the same mechanism and noise on the "
    "same device, geometric mean over settings.",
)
def time_nested(results: Results) -> Finding | None:
    cells = results.cells
    on = [*ACROSS, base.MEASURED_ON]
    pairs = base.paired(_network(cells, SMALL), _network(cells, LARGE), "epoch_seconds", on)
    found = base.ratio(pairs)
    return base.conclude("Nested U-Net takes {} times as long.", found, above=1)


@claim(
    "Results, training time",
    "In Nested U-Net automatic clipping with noise multiplier 1.0 is the fastest.",
    "Seconds per epoch of automatic clipping at noise multiplier 1 over those of the fastest other "
    "setting of the same run on the same device, Nested U-Net, geometric mean.",
)
def time_automatic(results: Results) -> Finding | None:
    cells = _network(results.cells, LARGE)
    fast = ways.automatic(cells)
    fast = fast[fast["noise_multiplier"] == 1]
    on = ["dataset", base.MEASURED_ON]
    others = cells.drop(fast.index)
    others = others.groupby([*on, *RUN], as_index=False)["epoch_seconds"].min()
    pairs = base.paired(others, fast, "epoch_seconds", on)
    found = base.ratio(pairs)
    return base.conclude("It takes {} times as long as the fastest other setting.", found, below=1)


@claim(
    "Conclusion, performance",
    "Automatic clipping improves training efficiency.",
    "Seconds per epoch with automatic clipping over those of ordinary training of the same run on "
    "the same device, geometric mean over noise multipliers, in each dataset and network.",
)
def efficiency(results: Results) -> Finding | None:
    words = "An epoch with automatic clipping takes {} times as long as an ordinary one."
    return base.conclude_each(words, _times(results.cells), base.ratio, below=1)


@claim(
    "Conclusion, performance",
    "Automatic clipping improves training efficiency more in Nested U-Net than in U-Net.",
    "Seconds per epoch with automatic clipping over those of ordinary training of the same run on "
    "the same device, in Nested U-Net over in U-Net, geometric mean over noise multipliers.",
)
def efficiency_nested(results: Results) -> Finding | None:
    times = _times(results.cells)
    # under other names: noise levels share their ordinary training and are no settings of chance
    times = times.rename(columns={"privacy_2": "noise", "mechanism_2": "way"})
    times = times[[*WITHIN, "noise", "way", *RUN, base.MEASURED_ON]].assign(
        longer=times["second"] / times["first"]
    )
    on = ["dataset", "noise", "way", base.MEASURED_ON]
    pairs = base.paired(_network(times, SMALL), _network(times, LARGE), "longer", on)
    words = "That ratio in Nested U-Net is {} times the one in U-Net."
    return base.conclude(words, base.ratio(pairs), below=1)


@claim(
    "Results, accuracy",
    "Nested U-Net reaches a higher validation accuracy than U-Net.",
    "Share of right validation pixels after the last epoch, Nested U-Net minus U-Net at the same "
    "mechanism and noise, mean over settings.",
)
def accuracy_nested(results: Results) -> Finding | None:
    cells = _measured(results.cells, "val_pixel_accuracy")
    pairs = base.paired(
        _network(cells, SMALL), _network(cells, LARGE), "val_pixel_accuracy", ACROSS
    )
    found = base.difference(pairs)
    return base.conclude("The accuracy of Nested U-Net is higher by {}.", found, above=0)


@claim(
    "Results, accuracy",
    "In Nested U-Net the validation accuracy of automatic clipping nearly matches that of ordinary "
    "training.",
    "Share of right validation pixels after the last epoch, automatic clipping, mean over noise "
    "multipliers, minus ordinary training, Nested U-Net; nearly means above -0.02.",
)
def accuracy_nested_automatic(results: Results) -> Finding | None:
    pairs = _against_ordinary(_network(results.cells, LARGE), "val_pixel_accuracy")
    return base.conclude(ACCURACY, base.difference(pairs), above=-MARGIN)


@claim(
    "Results, accuracy",
    "In U-Net automatic clipping starts with a higher validation accuracy than ordinary training.",
    "Share of right validation pixels after the first epoch, automatic clipping, mean over noise "
    "multipliers, minus ordinary training, U-Net.",
)
def accuracy_start(results: Results) -> Finding | None:
    pairs = _against_ordinary(_network(results.cells, SMALL), "first_val_pixel_accuracy")
    return base.conclude(ACCURACY, base.difference(pairs), above=0)


@claim(
    "Conclusion, performance",
    "Automatic clipping outperforms or matches ordinary training in {}.",
    "Last {1} with automatic clipping, geometric mean over noise multipliers, over that of "
    "ordinary training, in each dataset and network; matching means below 1.1.",
    {
        "train_loss": ("training loss", "training loss"),
        "val_loss": ("validation loss", "loss on the validation images of the split"),
    },
)
def matching(loss: str, results: Results) -> Finding | None:
    words = "The loss with automatic clipping is {} times that of ordinary training."
    pairs = _against_ordinary(results.cells, loss)
    return base.conclude_each(words, pairs, base.ratio, below=ALIKE)


@claim(
    "Conclusion, performance",
    "Automatic clipping outperforms or matches ordinary training in validation accuracy.",
    "Share of right validation pixels after the last epoch, automatic clipping, mean over noise "
    "multipliers, minus ordinary training, in each dataset and network; matching means above "
    "-0.02.",
)
def matching_accuracy(results: Results) -> Finding | None:
    pairs = _against_ordinary(results.cells, "val_pixel_accuracy")
    return base.conclude_each(ACCURACY, pairs, base.difference, above=-MARGIN)


@claim(
    "Conclusion, performance",
    "Automatic clipping outperforms or matches ordinary training in test Dice.",
    "Test Dice with automatic clipping, mean over patients and noise multipliers, minus that of "
    "ordinary training, in each dataset and network; matching means above -0.02.",
)
def utility(results: Results) -> Finding | None:
    cells = results.cells[results.cells["dataset"].map(results.primary) == "dice"]
    first, second = (
        results.test_scores.merge(way(cells)[CELL]) for way in (ways.ordinary, ways.automatic)
    )
    pairs = base.paired(first, second, "score", WITHIN)
    words = "The Dice with automatic clipping differs by {}."
    return base.conclude_each(words, pairs, base.difference, above=-MARGIN)


def _against_ordinary(cells: pd.DataFrame, value: str, *on: str) -> pd.DataFrame:
    cells = _measured(cells, value)
    return base.paired(ways.ordinary(cells), ways.automatic(cells), value, [*WITHIN, *on])


def _times(cells: pd.DataFrame) -> pd.DataFrame:
    return _against_ordinary(cells, "epoch_seconds", base.MEASURED_ON)


def _measured(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """The cells with a value, NaN where no cell has it."""
    return cells.assign(**{value: cells.get(value, math.nan)})


def _network(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    return cells[cells["model"] == name]
