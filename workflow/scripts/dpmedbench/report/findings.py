"""What the front page says of a run: best utility at each noise, cost, claims, software."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dpmedbench.claims.base import CONTROL
from dpmedbench.figures import wording
from dpmedbench.report import software
from dpmedbench.report.numbers import with_epsilon
from dpmedbench.results import CONSTANT
from dpmedbench.summary import text
from dpmedbench.verdicts import SINGLE, UNCLEAR

if TYPE_CHECKING:
    import pandas as pd

PRIMARY = {"dice": "Dice", "balanced_accuracy": "balanced accuracy"}
MOST_ROWS = 40  # of the table of the best; the page of results has them all
MOST_NAMES = 4  # of mechanisms that are not separated; the page of comparisons has them all


def find(
    tables: Mapping[str, pd.DataFrame], manifests: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """The findings as plain values.

    Args:
        tables: summary, comparisons, claims and privacy.
        manifests: of all cells.

    Returns:
        `best`, rows of texts (dataset, model, metric, noise, epsilon, mechanism, value, of,
        others), first the constant predictor and training without privacy, then the best mechanism
        of each noise, where `others` are those that the comparisons do not separate from it;
        `more`, whether rows were cut; `cost`, a sentence a dataset and model; `claims`, how many
        of the published ones have which verdict; `software`, with what the cells were trained.
    """
    summary, claims = tables["summary"], tables["claims"]
    published = claims[~claims["source"].str.startswith(CONTROL)]
    scores = with_epsilon(summary[summary["metric"].isin(PRIMARY)], tables["privacy"])
    best = [row for rows in _primary(scores) for row in _best(rows, tables["comparisons"])]
    return {
        "best": best[:MOST_ROWS],
        "more": len(best) > MOST_ROWS,
        "cost": [*_costs(summary)],
        "claims": published["verdict"].value_counts().to_dict(),
        "software": software.of_cells(manifests),
    }


def _primary(scores: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each dataset and model that have a value."""
    known = scores[scores["value"].notna()]
    return [rows for _, rows in known.groupby(["dataset", "model"], sort=False)]


def _best(rows: pd.DataFrame, comparisons: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The references, then the best of each noise, least noise first."""
    trained = rows[rows["mechanism"] != CONSTANT]
    for chosen in (rows[rows["mechanism"] == CONSTANT], trained[trained["privacy"] == "none"]):
        if len(chosen):
            yield _row(chosen.loc[chosen["value"].idxmax()]) | {"others": "–"}
    for level in wording.noises(trained["privacy"]):
        chosen = trained[trained["privacy"] == level]
        best = chosen.loc[chosen["value"].idxmax()]
        yield _row(best) | {"others": _not_separated(best, comparisons)}


def _not_separated(best: pd.Series, comparisons: pd.DataFrame) -> str:
    """The mechanisms of the same noise, or of none, that cannot be told from the best one."""
    rows = comparisons
    for name in ("dataset", "model", "privacy", "metric"):
        rows = rows[rows[name] == best[name]]
    rows = rows[(rows[["first", "second"]] == best["mechanism"]).any(axis=1)]
    if rows.empty:
        return "–"
    if (rows["verdict"] == SINGLE).all():
        return SINGLE
    rows = rows[rows["verdict"].isin((UNCLEAR, SINGLE))]
    others = rows["first"].where(rows["first"] != best["mechanism"], rows["second"])
    if len(others) > MOST_NAMES:
        return f"{len(others)} others"
    return ", ".join(map(wording.name, others)) or "none"


def _row(row: pd.Series) -> dict[str, str]:
    return {
        "dataset": row["dataset"],
        "model": wording.name(row["model"]),
        "metric": PRIMARY[row["metric"]],
        "noise": wording.noise_name(row["privacy"]) if row["privacy"] != "none" else "–",
        "epsilon": row["epsilon_text"],
        "mechanism": wording.name(row["mechanism"]),
        "value": text(row["value"], row["low"], row["high"]),
        "of": f"{_several(row['patients'], 'patient')}, {_several(row['runs'], 'run')}",
    }


def _several(number: float, name: str) -> str:
    return f"{number:.0f} {name}{'s' * int(number != 1)}"


def _costs(summary: pd.DataFrame) -> Iterator[str]:
    """How much longer a private step takes, and how much more memory, from which to which.

    Of a mechanism the mean over its noise levels, as in the figure of cost.
    """
    private = summary[summary["privacy"].str.startswith(("sigma", "eps"))]
    for (dataset, model), rows in private.groupby(["dataset", "model"], sort=False):
        parts = []
        for metric, words in (
            ("step_seconds_ratio", "times the step time"),
            ("peak_bytes_ratio", "times the peak memory"),
        ):
            ratio = rows[rows["metric"] == metric].groupby("mechanism")["value"].mean().dropna()
            if len(ratio):
                parts.append(f"{_range(ratio)} {words}")
        if parts:
            yield f"{dataset}, {wording.name(model)}: {' and '.join(parts)} of ordinary training."


def _range(ratio: pd.Series) -> str:
    least, most = ratio.idxmin(), ratio.idxmax()
    if math.isclose(ratio[least], ratio[most], rel_tol=0.005):
        return f"{ratio[least]:.2f}"
    return f"{ratio[least]:.2f} ({wording.name(least)}) to {ratio[most]:.2f} ({wording.name(most)})"
