"""Claims about the time of training."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import Finding, claim
from dpmedbench.claims.bookkeeping import arms
from dpmedbench.claims.bookkeeping.arms import BOOK_KEEPING, OPACUS
from dpmedbench.claims.ways import ENGINES
from dpmedbench.results import Results

SLOWER = 0.05
ENDS = {0.5: 0.3, 0.7: 1.0}  # the nearest end of each noise multiplier of the middle
MIDDLE = (
    "Seconds per epoch of {} at noise multiplier 0.5 over those at 0.3, and at 0.7 over those at "
    "1.0, of the same run on the same device on {}, geometric mean, at each of the two ends; {} "
    "means by more than 5 %."
)


@claim(
    "Section IX",
    "Opacus takes more time per iteration than Book-Keeping ({}).",
    f"Seconds per epoch of {OPACUS} over those of {BOOK_KEEPING} by {{}} at the same dataset, "
    "network and noise and on the same device, geometric mean over settings.",
    ENGINES,
)
def time(engine: str, results: Results) -> Finding | None:
    return _slower(arms.rivals(results.cells, "epoch_seconds", base.MEASURED_ON), engine)


@claim(
    base.control("Section IX"),
    "Control: where both clip alike, Opacus takes more time per iteration than Book-Keeping ({}).",
    f"Seconds per epoch of Opacus over those of Book-Keeping by {{}} {arms.ALIKE} at the same "
    "dataset, network and noise and on the same device, geometric mean over settings.",
    ENGINES,
)
def time_alike(engine: str, results: Results) -> Finding | None:
    return _slower(arms.controls(results.cells, "epoch_seconds", base.MEASURED_ON), engine)


@claim(
    "Section VIII.A, Figure 5",
    "On Duke, Book-Keeping takes longer at mid-range noise multipliers than at lower and higher "
    "ones.",
    MIDDLE.format(BOOK_KEEPING, "Duke", "longer"),
)
def time_noise_duke(results: Results) -> Finding | None:
    return _middle(ways.book_keeping_automatic(arms.on(results.cells, "duke")), above=1 + SLOWER)


@claim(
    "Section VIII.A, Figure 5",
    "On Duke, Opacus takes longer at lower noise multipliers.",
    f"Least-squares slope of log seconds per epoch of {OPACUS} over the noise multiplier on Duke, "
    "a level each mechanism, run and device; longer means by more than 5 % per unit.",
)
def time_noise_duke_opacus(results: Results) -> Finding | None:
    cells = ways.with_noise(ways.opacus_per_layer(arms.on(results.cells, "duke")))
    cells = cells.assign(log=np.log(cells["epoch_seconds"]))
    found = base.trend(cells, "log", "noise_multiplier", [base.MEASURED_ON])
    words = "Log seconds change by {} per unit of the noise multiplier."
    return base.conclude(words, found, below=-SLOWER)


@claim(
    "Section VIII.A, Figure 6",
    "On UMN, Book-Keeping takes less time at mid-range noise multipliers than at lower and higher "
    "ones.",
    MIDDLE.format(BOOK_KEEPING, "UMN", "less"),
)
def time_noise_umn(results: Results) -> Finding | None:
    return _middle(ways.book_keeping_automatic(arms.on(results.cells, "umn")), below=1 - SLOWER)


@claim(
    "Section VIII.A, Figure 6",
    "On UMN, Opacus takes less time at mid-range noise multipliers than at lower and higher ones.",
    MIDDLE.format(OPACUS, "UMN", "less"),
)
def time_noise_umn_opacus(results: Results) -> Finding | None:
    return _middle(ways.opacus_per_layer(arms.on(results.cells, "umn")), below=1 - SLOWER)


def _slower(pairs: pd.DataFrame, engine: str) -> Finding | None:
    found = base.ratio(pairs[pairs["engine_1"] == engine])
    return base.conclude("Opacus takes {} times as long.", found, above=1)


def _middle(cells: pd.DataFrame, **limits: float) -> Finding | None:
    cells = ways.with_noise(cells)
    on = [*base.WITHIN, "mechanism", base.MEASURED_ON]
    ends = {}
    for middle, end in ENDS.items():
        pair = (cells[cells["noise_multiplier"] == level] for level in (end, middle))
        ends[f"{middle} over {end}"] = base.paired(*pair, "epoch_seconds", on)
    if any(pairs.empty for pairs in ends.values()):
        return None
    words = "The middle noise multiplier takes {} times as long as the end."
    pairs = pd.concat(ends, names=["end"])
    return base.conclude_each(words, pairs, base.ratio, ["end"], **limits)
