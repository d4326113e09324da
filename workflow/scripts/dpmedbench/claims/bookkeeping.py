"""Shandilya, "Privacy and Performance: Analysis of Biomedical Image Segmentation"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmedbench import published
from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT, Finding, claim
from dpmedbench.evaluation import RUN
from dpmedbench.results import Results

MARGIN = 0.1
ORDINARY = "The loss of Book-Keeping is {} times that of ordinary training."
RIVALS = "The loss of Opacus is {} times that of Book-Keeping."


@claim(
    "Abstract; Section VIII.D, Figures 11 and 12",
    "Book-Keeping is more efficient than Opacus in managing the privacy budget.",
    "Final epsilon of Book-Keeping over that of Opacus at the same dataset, network and noise, "
    "mean and range; less means below 0.99.",
)
def budget(results: Results) -> Finding | None:
    return _budget(results.cells, "epsilon", "Book-Keeping spends {} times the epsilon of Opacus.")


@claim(
    "Section IX, Figure 11",
    "On Duke, Book-Keeping spends less privacy budget than Opacus in the first epochs.",
    "Epsilon of Book-Keeping after the first epoch over that of Opacus at the same network and "
    "noise on Duke, mean and range; less means below 0.99.",
)
def budget_early(results: Results) -> Finding | None:
    words = "In its first epoch Book-Keeping spends {} times the epsilon of Opacus."
    return _budget(_on(results.cells, "duke"), "first_epsilon", words)


@claim(
    "Section VIII.D, Figures 11 and 12",
    "At noise multiplier 0.3 epsilon reaches 500 on Duke and 350 on UMN after 100 epochs.",
    "Final epsilon at that noise, length and batch size 10 over the published one, mean and range; "
    "as published means within 10 %.",
)
def budget_reached(results: Results) -> Finding | None:
    expected = published.table("bookkeeping")
    expected = expected[expected["metric"] == "epsilon"].rename(columns={"dataset": "published"})
    cells = _either(results.cells)
    cells = cells[(cells["epochs"] == 100) & (cells["batch_size"] == 10)]
    found = cells.merge(expected[["published", "privacy", "value"]])
    found = base.spread(found["epsilon"] / found["value"], f"{len(found)} cells")
    return base.conclude("Epsilon is {} times the published one.", found, 1 - MARGIN, 1 + MARGIN)


@claim(
    "Section IX",
    "Opacus takes more time per iteration than Book-Keeping.",
    "Seconds per epoch of Opacus over those of Book-Keeping at the same dataset, network and "
    "noise and on the same device, geometric mean.",
)
def time(results: Results) -> Finding | None:
    cells = results.cells
    on = [*CONTEXT, base.MEASURED_ON]
    pairs = base.paired(ways.book_keeping(cells), ways.opacus(cells), "epoch_seconds", on)
    found = base.ratio(pairs)
    return base.conclude("Opacus takes {} times as long.", found, above=1)


@claim(
    "Section VIII.A, Figures 5 and 6",
    "Training time depends on the noise multiplier.",
    "Least-squares slope of log seconds per epoch over the noise multiplier, a level each "
    "mechanism, run and device; no dependence means within 5 % per unit.",
)
def time_noise(results: Results) -> Finding | None:
    cells = ways.with_noise(_either(results.cells))
    cells = cells.assign(log=np.log(cells["epoch_seconds"]))
    found = base.trend(cells, "log", "noise_multiplier", [base.MEASURED_ON])
    words = "Log seconds change by {} per unit of the noise multiplier."
    return base.conclude(words, found, -0.05, 0.05, contrary=True)


@claim(
    "Section VIII.B, Figures 7 and 8",
    "Higher noise multipliers lead to higher training losses.",
    "Least-squares slope of the last training loss over the noise multiplier, a level each "
    "mechanism and run.",
)
def training_loss_noise(results: Results) -> Finding | None:
    return _loss_trend(results, "train_loss", "training")


@claim(
    "Section VIII.C, Figures 9 and 10",
    "Higher noise multipliers lead to higher validation losses.",
    "Least-squares slope of the last validation loss over the noise multiplier, a level each "
    "mechanism and run.",
)
def validation_loss_noise(results: Results) -> Finding | None:
    return _loss_trend(results, "val_loss", "validation")


@claim(
    "Section IX, Figure 7",
    "On Duke, Book-Keeping reaches a lower training loss than Opacus.",
    "Last training loss of Opacus minus that of Book-Keeping at the same network and noise on "
    "Duke.",
)
def training_loss_duke(results: Results) -> Finding | None:
    pairs = _rivals(_on(results.cells, "duke"), "train_loss")
    return base.conclude("The loss of Opacus is higher by {}.", base.difference(pairs), above=0)


@claim(
    "Section IX, Figure 8",
    "On UMN, Book-Keeping and Opacus reach comparable training losses.",
    "Last training loss of Opacus over that of Book-Keeping at the same network and noise on UMN, "
    "geometric mean; comparable means within 10 %.",
)
def training_loss_umn_opacus(results: Results) -> Finding | None:
    return _same_loss(_rivals(_on(results.cells, "umn"), "train_loss"), RIVALS)


@claim(
    "Section IX, Figure 10",
    "On UMN, Book-Keeping and Opacus reach comparable validation losses.",
    "Last validation loss of Opacus over that of Book-Keeping at the same network and noise on "
    "UMN, geometric mean; comparable means within 10 %.",
)
def validation_loss_umn_opacus(results: Results) -> Finding | None:
    return _same_loss(_rivals(_on(results.cells, "umn"), "val_loss"), RIVALS)


@claim(
    "Section VIII.E, Figures 13 and 14",
    "Opacus has a higher mean validation loss than Book-Keeping.",
    "Validation loss, mean over epochs, of Opacus minus that of Book-Keeping at the same dataset, "
    "network and noise.",
)
def validation_loss(results: Results) -> Finding | None:
    pairs = _rivals(results.cells, "mean_val_loss")
    return base.conclude("The loss of Opacus is higher by {}.", base.difference(pairs), above=0)


@claim(
    "Section VIII.E, Figures 13 and 14",
    "The mean validation losses lie closer together on UMN than on Duke.",
    "Largest minus smallest validation loss, mean over epochs, of the mechanisms and noise levels "
    "that both datasets have, on UMN minus on Duke in the same run.",
)
def loss_range(results: Results) -> Finding | None:
    cells = pd.concat([ways.ordinary(results.cells), _either(results.cells)])
    cells = cells.dropna(subset="mean_val_loss")
    settings = ["model", "mechanism", "privacy", *RUN]
    both = [_on(cells, name)[settings] for name in ("duke", "umn")]
    both = both[0].merge(both[1]).drop_duplicates()
    ranges = [_range(_on(cells, name).merge(both)) for name in ("duke", "umn")]
    found = base.difference(base.paired(*ranges, "mean_val_loss", ["model"]))
    return base.conclude("The range on UMN is larger by {}.", found, below=0)


@claim(
    "Section VIII.B, Figure 8",
    "On UMN the training loss of Book-Keeping is comparable to that of ordinary training.",
    "Last training loss of Book-Keeping over that of ordinary training of the same network on "
    "UMN, geometric mean; comparable means within 10 %.",
)
def training_loss_umn(results: Results) -> Finding | None:
    return _same_loss(_against_ordinary(_on(results.cells, "umn"), "train_loss"), ORDINARY)


@claim(
    "Section VIII.C, Figure 10",
    "On UMN the validation loss of Book-Keeping is comparable to that of ordinary training.",
    "Last validation loss of Book-Keeping over that of ordinary training of the same network on "
    "UMN, geometric mean; comparable means within 10 %.",
)
def validation_loss_umn(results: Results) -> Finding | None:
    return _same_loss(_against_ordinary(_on(results.cells, "umn"), "val_loss"), ORDINARY)


def _budget(cells: pd.DataFrame, epsilon: str, words: str) -> Finding | None:
    pairs = _rivals(ways.with_noise(cells), epsilon)
    found = base.spread(pairs["first"] / pairs["second"], f"{pairs['setting'].nunique()} settings")
    return base.conclude(words, found, below=1 - base.SAME)


def _loss_trend(results: Results, loss: str, name: str) -> Finding | None:
    found = base.trend(ways.with_noise(_either(results.cells)), loss, "noise_multiplier")
    words = f"The {name} loss rises by {{}} per unit of the noise multiplier."
    return base.conclude(words, found, above=0)


def _same_loss(pairs: pd.DataFrame, words: str) -> Finding | None:
    return base.conclude(words, base.ratio(pairs), 1 - MARGIN, 1 + MARGIN)


def _range(cells: pd.DataFrame) -> pd.DataFrame:
    """The range of the mean validation losses of the settings of a run, where it has several."""
    groups = cells.groupby(["dataset", "model", *RUN])["mean_val_loss"]
    return (groups.max() - groups.min())[groups.size() > 1].reset_index()


def _rivals(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Pairs of Book-Keeping and Opacus."""
    return base.paired(ways.book_keeping(cells), ways.opacus(cells), value, CONTEXT)


def _against_ordinary(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Pairs of ordinary training and Book-Keeping."""
    return base.paired(ways.ordinary(cells), ways.book_keeping(cells), value, ["dataset", "model"])


def _on(cells: pd.DataFrame, published: str) -> pd.DataFrame:
    """The cells on a published dataset, whatever it is called."""
    return cells[cells["published"] == published]


def _either(cells: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([ways.opacus(cells), ways.book_keeping(cells)])
