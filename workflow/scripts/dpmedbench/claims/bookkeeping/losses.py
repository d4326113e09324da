"""Claims about losses."""

from __future__ import annotations

import functools

import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Finding, claim
from dpmedbench.claims.bookkeeping import arms
from dpmedbench.claims.bookkeeping.arms import BOOK_KEEPING, OPACUS
from dpmedbench.evaluation import RUN
from dpmedbench.results import Results

MARGIN = 0.1
ORDINARY = "The loss of Book-Keeping is {} times that of ordinary training."
RIVALS = "The loss of Opacus is {} times that of Book-Keeping."
TRAINING = "training loss"
VALIDATION = "loss on the validation images of the split"
MEAN = f"{VALIDATION.capitalize()}, mean over epochs,"
TREND = (
    f"Least-squares slope of the last {{}} over the noise multiplier, a level each mechanism and "
    f"run, in each dataset and network of {OPACUS} and of {BOOK_KEEPING}; without the latter on "
    "UMN."
)
HIGHER = (
    f"Last {{}} of {OPACUS} minus that of {BOOK_KEEPING} at the same noise on {{}}, mean over "
    "noise multipliers, in each network."
)
SIMILAR = (
    f"Last {{}} of {OPACUS} over that of {BOOK_KEEPING} at the same noise on UMN, geometric mean "
    "over noise multipliers, in each network; comparable means within 10 %."
)
LIKE_ORDINARY = (
    f"Last {{}} of {BOOK_KEEPING} over that of ordinary training on UMN, geometric mean over "
    "noise multipliers, in each network; comparable means within 10 %."
)


@claim(
    "Section VIII.B, Figures 7 and 8",
    "Higher noise multipliers lead to higher training losses, but for Book-Keeping on UMN.",
    TREND.format(TRAINING),
)
def training_loss_noise(results: Results) -> Finding | None:
    return _loss_trend(results, "train_loss", "training")


@claim(
    "Section VIII.C, Figures 9 and 10",
    "Higher noise multipliers lead to higher validation losses, but for Book-Keeping on UMN.",
    TREND.format(VALIDATION),
)
def validation_loss_noise(results: Results) -> Finding | None:
    return _loss_trend(results, "val_loss", "validation")


@claim(
    "Section IX, Figure 7",
    "On Duke, Book-Keeping reaches a lower training loss than Opacus.",
    HIGHER.format(TRAINING, "Duke"),
)
def training_loss_duke(results: Results) -> Finding | None:
    return _higher(arms.rivals(arms.on(results.cells, "duke"), "train_loss"))


@claim(
    "Section IX, Figure 9",
    "On Duke, Book-Keeping reaches a lower validation loss than Opacus.",
    HIGHER.format(VALIDATION, "Duke"),
)
def validation_loss_duke(results: Results) -> Finding | None:
    return _higher(arms.rivals(arms.on(results.cells, "duke"), "val_loss"))


@claim(
    base.control("Section IX"),
    "Control: where both clip alike, Opacus and Book-Keeping reach the same training loss on Duke.",
    f"Last training loss of Opacus over that of Book-Keeping {arms.ALIKE} at the same noise on "
    "Duke, geometric mean over noise multipliers, in each network; the same means within 10 %.",
)
def training_loss_duke_alike(results: Results) -> Finding | None:
    return _same(arms.controls(arms.on(results.cells, "duke"), "train_loss"), RIVALS)


@claim(
    "Abstract",
    "On the larger dataset, UMN, Book-Keeping reaches a lower {0} than Opacus.",
    HIGHER.format("{1}", "UMN"),
    {"train": (TRAINING, TRAINING), "val": ("validation loss", VALIDATION)},
)
def lower_umn(part: str, results: Results) -> Finding | None:
    return _higher(arms.rivals(arms.on(results.cells, "umn"), f"{part}_loss"))


@claim(
    "Section IX, Figure 8",
    "On UMN, Book-Keeping and Opacus reach comparable training losses.",
    SIMILAR.format(TRAINING),
)
def training_loss_umn_opacus(results: Results) -> Finding | None:
    return _same(arms.rivals(arms.on(results.cells, "umn"), "train_loss"), RIVALS)


@claim(
    "Section IX, Figure 10",
    "On UMN, Book-Keeping and Opacus reach comparable validation losses.",
    SIMILAR.format(VALIDATION),
)
def validation_loss_umn_opacus(results: Results) -> Finding | None:
    return _same(arms.rivals(arms.on(results.cells, "umn"), "val_loss"), RIVALS)


@claim(
    "Section VIII.E, Figures 13 and 14",
    "Opacus has a higher mean validation loss than Book-Keeping.",
    f"{MEAN} of {OPACUS} minus that of {BOOK_KEEPING} at the same noise, mean over noise "
    "multipliers, in each dataset and network.",
)
def validation_loss(results: Results) -> Finding | None:
    return _higher(arms.rivals(results.cells, "mean_val_loss"))


@claim(
    base.control("Section VIII.E"),
    "Control: where both clip alike, Opacus and Book-Keeping have the same mean validation loss.",
    f"{MEAN} of Opacus over that of Book-Keeping {arms.ALIKE} at the same noise, geometric mean "
    "over noise multipliers, in each dataset and network; the same means within 10 %.",
)
def validation_loss_alike(results: Results) -> Finding | None:
    return _same(arms.controls(results.cells, "mean_val_loss"), RIVALS)


@claim(
    "Section VIII.E, Figures 13 and 14",
    "The mean validation losses lie closer together on UMN than on Duke.",
    f"Largest minus smallest {VALIDATION}, mean over epochs, of ordinary training, {OPACUS} and "
    f"{BOOK_KEEPING} at the noise levels that both datasets have, on UMN minus on Duke in the "
    "same run.",
)
def loss_range(results: Results) -> Finding | None:
    cells = pd.concat([ways.ordinary(results.cells), arms.both(results.cells)])
    cells = cells.dropna(subset="mean_val_loss")
    settings = ["model", "mechanism", "privacy", *RUN]
    both = [arms.on(cells, name)[settings] for name in ("duke", "umn")]
    both = both[0].merge(both[1]).drop_duplicates()
    ranges = [_range(arms.on(cells, name).merge(both)) for name in ("duke", "umn")]
    found = base.difference(base.paired(*ranges, "mean_val_loss", ["model"]))
    return base.conclude("The range on UMN is larger by {}.", found, below=0)


@claim(
    "Section VIII.B, Figure 8",
    "On UMN the training loss of Book-Keeping is comparable to that of ordinary training.",
    LIKE_ORDINARY.format(TRAINING),
)
def training_loss_umn(results: Results) -> Finding | None:
    return _same(_against_ordinary(results.cells, "train_loss"), ORDINARY)


@claim(
    "Section VIII.C, Figure 10",
    "On UMN the validation loss of Book-Keeping is comparable to that of ordinary training.",
    LIKE_ORDINARY.format(VALIDATION),
)
def validation_loss_umn(results: Results) -> Finding | None:
    return _same(_against_ordinary(results.cells, "val_loss"), ORDINARY)


def _loss_trend(results: Results, loss: str, name: str) -> Finding | None:
    cells = ways.with_noise(arms.both(results.cells))
    cells = cells[(cells["engine"] == "opacus") | (cells["published"] != "umn")]
    slope = functools.partial(base.trend, value=loss, over="noise_multiplier")
    words = f"The {name} loss rises by {{}} per unit of the noise multiplier."
    return base.conclude_each(words, cells, slope, [*base.WITHIN, "engine"], above=0)


def _higher(pairs: pd.DataFrame) -> Finding | None:
    words = "The loss of Opacus is higher by {}."
    return base.conclude_each(words, pairs, base.difference, above=0)


def _same(pairs: pd.DataFrame, words: str) -> Finding | None:
    return base.conclude_each(words, pairs, base.ratio, above=1 - MARGIN, below=1 + MARGIN)


def _range(cells: pd.DataFrame) -> pd.DataFrame:
    """The range of the mean validation losses of the settings of a run, where it has several."""
    groups = cells.groupby(["dataset", "model", *RUN])["mean_val_loss"]
    return (groups.max() - groups.min())[groups.size() > 1].reset_index()


def _against_ordinary(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Pairs of ordinary training and Book-Keeping on UMN."""
    cells = arms.on(cells, "umn")
    pair = ways.ordinary(cells), ways.book_keeping_automatic(cells)
    return base.paired(*pair, value, ["dataset", "model"])
