"""Claims about epsilon."""

from __future__ import annotations

import pandas as pd

from dpmedbench import published
from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Estimate, Finding, claim
from dpmedbench.claims.bookkeeping import arms
from dpmedbench.claims.bookkeeping.arms import BOOK_KEEPING, OPACUS
from dpmedbench.results import Results

MARGIN = 0.1
# what epsilon follows from beside the noise: of the training images 80 % of 110 and of 725
PLAN = {"epochs": 100, "batch_size": 10, "sampling": "poisson", "delta": 1e-5}
RECORDS = {"duke": 88, "umn": 580}
SPENT = "Book-Keeping spends {} times the epsilon of Opacus."
WHOLE_PATIENTS = 0.02  # how far a split by patients may be off


@claim(
    "Abstract; Section VIII.D, Figures 11 and 12",
    "Book-Keeping is more efficient than Opacus in managing the privacy budget.",
    f"Final epsilon of {BOOK_KEEPING} over that of {OPACUS} at the same dataset, network and "
    "noise, mean and range; less means below 0.99.",
)
def budget(results: Results) -> Finding | None:
    return base.conclude(SPENT, _spent(results.cells, "epsilon"), below=1 - base.SAME)


@claim(
    "Section VIII.D, Figure 11",
    "On Duke, Book-Keeping and Opacus spend a similar privacy budget.",
    f"Final epsilon of {BOOK_KEEPING} over that of {OPACUS} at the same network and noise on Duke, "
    "mean and range; similar means within 1 %.",
)
def budget_duke(results: Results) -> Finding | None:
    found = _spent(arms.on(results.cells, "duke"), "epsilon")
    return base.conclude(SPENT, found, 1 - base.SAME, 1 + base.SAME)


@claim(
    "Sections VIII.D and IX, Figure 12",
    "On UMN, Book-Keeping spends less privacy budget than Opacus.",
    f"Final epsilon of {BOOK_KEEPING} over that of {OPACUS} at the same network and noise on UMN, "
    "mean and range; less means below 0.99.",
)
def budget_umn(results: Results) -> Finding | None:
    found = _spent(arms.on(results.cells, "umn"), "epsilon")
    return base.conclude(SPENT, found, below=1 - base.SAME)


@claim(
    "Section VIII.D, Figures 11 and 12",
    "Lower noise multipliers lead to more privacy budget spent.",
    f"Final epsilon of {OPACUS} and {BOOK_KEEPING} at each noise multiplier over that at the next "
    "lower one of the same dataset, network and mechanism, mean and range; more at the lower means "
    "below 1.",
)
def budget_noise(results: Results) -> Finding | None:
    found = base.over_noise(ways.with_noise(arms.both(results.cells)))
    return base.conclude(base.OVER_NOISE, found, below=1)


@claim(
    "Section IX, Figure 11",
    "On Duke, Book-Keeping spends less privacy budget than Opacus in the first epochs.",
    f"Epsilon of {BOOK_KEEPING} after the first epoch over that of {OPACUS} at the same network "
    "and noise on Duke, mean and range; less means below 0.99.",
)
def budget_early(results: Results) -> Finding | None:
    words = "In its first epoch Book-Keeping spends {} times the epsilon of Opacus."
    found = _spent(arms.on(results.cells, "duke"), "first_epsilon")
    return base.conclude(words, found, below=1 - base.SAME)


@claim(
    "Section VIII.D, Figures 11 and 12",
    "At the lowest noise multiplier epsilon reaches 500 on Duke, and 350 on UMN with Opacus.",
    f"Final epsilon of {OPACUS}, and on Duke of {BOOK_KEEPING}, at noise multiplier 0.3 over the "
    "published one, mean and range; as published means within 10 %. By accountant prv, that of "
    "Opacus (the study names none), of cells with the plan of the study: 100 epochs of batches of "
    "10, drawn by Poisson sampling, delta 1e-5, 80 % of the images.",
)
def budget_reached(results: Results) -> Finding | None:
    expected = published.table("bookkeeping")
    expected = expected[expected["metric"] == "epsilon"].drop(columns=["model", "study"])
    expected = expected.rename(columns={"dataset": "published", "mechanism": "named"})
    cells = pd.concat(
        [
            ways.opacus_per_layer(results.cells).assign(named="Opacus"),
            ways.book_keeping_automatic(results.cells).assign(named="Book-Keeping"),
        ]
    )
    cells = cells[(cells[[*PLAN]] == pd.Series(PLAN)).all(axis=1)]
    share = cells["num_records"] / cells["published"].map(RECORDS).astype(float)
    cells = cells[share.between(1 - WHOLE_PATIENTS, 1 + WHOLE_PATIENTS)]
    found = cells.merge(expected, on=["published", "named", "privacy"])
    found = base.spread(found["epsilon_prv"] / found["value"], f"{len(found)} cells")
    return base.conclude("Epsilon is {} times the published one.", found, 1 - MARGIN, 1 + MARGIN)


def _spent(cells: pd.DataFrame, epsilon: str) -> Estimate | None:
    """The budget of Book-Keeping over that of Opacus."""
    pairs = arms.rivals(ways.with_noise(cells), epsilon)
    return base.spread(pairs["first"] / pairs["second"], f"{pairs['setting'].nunique()} settings")
