"""Shandilya, "Privacy and Performance: Analysis of Biomedical Image Segmentation"."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmedbench import published
from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT, Finding, claim
from dpmedbench.results import Results

MARGIN = 0.1


@claim(
    "Abstract; Section VIII.D, Figures 11 and 12",
    "Book-Keeping is more efficient than Opacus in managing the privacy budget.",
    "Final epsilon of Book-Keeping over that of Opacus at the same dataset, network and noise, "
    "mean and range; less means below 0.99.",
)
def budget(results: Results) -> Finding | None:
    cells = ways.with_noise(results.cells)
    pairs = base.paired(ways.opacus(cells), ways.book_keeping(cells), "epsilon", CONTEXT)
    found = base.spread(pairs["second"] / pairs["first"], f"{pairs['setting'].nunique()} settings")
    return base.conclude(
        "Book-Keeping spends {} times the epsilon of Opacus.", found, below=1 - base.SAME
    )


@claim(
    "Section VIII.D, Figures 11 and 12",
    "At noise multiplier 0.3 epsilon reaches 500 on Duke and 350 on UMN after 100 epochs.",
    "Final epsilon at that noise and length over the published one, mean and range; as published "
    "means within 10 %.",
)
def budget_reached(results: Results) -> Finding | None:
    expected = published.table("bookkeeping")
    expected = expected[expected["metric"] == "epsilon"].rename(columns={"value": "published"})
    cells = _either(results.cells)
    cells = cells[cells["epochs"] == 100].drop(columns="mechanism")
    found = cells.merge(expected, on=["dataset", "privacy"])
    found = base.spread(found["epsilon"] / found["published"], f"{len(found)} cells")
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
    "Section VIII.E, Figures 13 and 14",
    "Opacus has a higher mean validation loss than Book-Keeping.",
    "Validation loss, mean over epochs, of Opacus minus that of Book-Keeping at the same dataset, "
    "network and noise.",
)
def validation_loss(results: Results) -> Finding | None:
    cells = results.cells
    pairs = base.paired(ways.book_keeping(cells), ways.opacus(cells), "mean_val_loss", CONTEXT)
    found = base.difference(pairs)
    return base.conclude("The loss of Opacus is higher by {}.", found, above=0)


@claim(
    "Sections VIII.B and VIII.C, Figures 8 and 10",
    "On UMN the losses of Book-Keeping are comparable to those of ordinary training.",
    "Last training loss of Book-Keeping over that of ordinary training of the same network on "
    "umn, geometric mean; comparable means within 10 %.",
)
def loss_umn(results: Results) -> Finding | None:
    cells = results.cells[results.cells["dataset"] == "umn"]
    pairs = base.paired(
        ways.ordinary(cells), ways.book_keeping(cells), "train_loss", ["dataset", "model"]
    )
    found = base.ratio(pairs)
    return base.conclude(
        "The loss of Book-Keeping is {} times that of ordinary training.",
        found,
        1 - MARGIN,
        1 + MARGIN,
    )


def _loss_trend(results: Results, loss: str, name: str) -> Finding | None:
    found = base.trend(ways.with_noise(_either(results.cells)), loss, "noise_multiplier")
    words = f"The {name} loss rises by {{}} per unit of the noise multiplier."
    return base.conclude(words, found, above=0)


def _either(cells: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([ways.opacus(cells), ways.book_keeping(cells)])
