"""What the front page says of a run: the best utility at each noise, its cost, the claims."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dpmedbench.claims.base import CONTROL
from dpmedbench.figures import wording
from dpmedbench.report.numbers import epsilon
from dpmedbench.results import CONSTANT
from dpmedbench.summary import text

if TYPE_CHECKING:
    import pandas as pd

PRIMARY = {"dice": "Dice", "balanced_accuracy": "balanced accuracy"}
MOST_ROWS = 40  # of the table of the best; the page of results has them all


def find(summary: pd.DataFrame, claims: pd.DataFrame) -> dict[str, object]:
    """The findings as plain values.

    Keys: `best`, rows of texts (dataset, model, metric, noise, epsilon, mechanism, value), first
    the constant predictor and training without privacy, then the best mechanism of each noise;
    `more`, whether rows were cut; `cost`, a sentence a dataset and model; `claims`, how many of the
    published ones have which verdict.
    """
    published = claims[~claims["source"].str.startswith(CONTROL)]
    best = [row for rows in _primary(summary) for row in _best(rows)]
    return {
        "best": best[:MOST_ROWS],
        "more": len(best) > MOST_ROWS,
        "cost": [*_costs(summary)],
        "claims": published["verdict"].value_counts().to_dict(),
    }


def _primary(summary: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of the primary metric of each dataset and model."""
    primary = summary[summary["metric"].isin(PRIMARY) & summary["value"].notna()]
    return [rows for _, rows in primary.groupby(["dataset", "model"], sort=False)]


def _best(rows: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The references, then the best of each noise, least noise first."""
    trained = rows[rows["mechanism"] != CONSTANT]
    for chosen in (rows[rows["mechanism"] == CONSTANT], trained[trained["privacy"] == "none"]):
        if len(chosen):
            yield _row(chosen.loc[chosen["value"].idxmax()])
    for level in wording.noises(trained["privacy"]):
        chosen = trained[trained["privacy"] == level]
        yield _row(chosen.loc[chosen["value"].idxmax()])


def _row(row: pd.Series) -> dict[str, str]:
    private = row["privacy"] != "none"
    return {
        "dataset": row["dataset"],
        "model": wording.name(row["model"]),
        "metric": PRIMARY[row["metric"]],
        "noise": wording.noise_name(row["privacy"]) if private else "–",
        "epsilon": epsilon(row) if private else "–",
        "mechanism": wording.name(row["mechanism"]),
        "value": text(row["value"], row["low"], row["high"]),
    }


def _costs(summary: pd.DataFrame) -> Iterator[str]:
    """How much longer a private step takes, and how much more memory, from which to which."""
    private = summary[summary["privacy"].str.startswith(("sigma", "eps"))]
    for (dataset, model), rows in private.groupby(["dataset", "model"], sort=False):
        parts = []
        for metric, words in (
            ("step_seconds_ratio", "times the step time"),
            ("peak_bytes_ratio", "times the peak memory"),
        ):
            ratio = rows[rows["metric"] == metric].groupby("mechanism")["value"].median().dropna()
            if len(ratio):
                parts.append(f"{_range(ratio)} {words}")
        if parts:
            yield f"{dataset}, {wording.name(model)}: {' and '.join(parts)} of ordinary training."


def _range(ratio: pd.Series) -> str:
    least, most = ratio.idxmin(), ratio.idxmax()
    if math.isclose(ratio[least], ratio[most], rel_tol=0.005):
        return f"{ratio[least]:.2f}"
    return f"{ratio[least]:.2f} ({wording.name(least)}) to {ratio[most]:.2f} ({wording.name(most)})"
