"""One row a setting and metric, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dpmedbench import means, statistics
from dpmedbench.evaluation import RUN, Evaluation, independent
from dpmedbench.results import ALWAYS, CONSTANT, MEASURED, SETTING, TRAITS, Results

COLUMNS = [
    *SETTING,
    *TRAITS,
    "metric",
    "value",
    "low",
    "high",
    "level",
    "runs",
    "patients",
    "images",
    "epsilon",
    "note",
]
ON_DEVICE = (*MEASURED.values(), "peak_bytes")  # what depends on the device
RATIOS = {"step_seconds": "step_seconds_ratio", "peak_bytes": "peak_bytes_ratio"}
SHARES = ("accuracy", "dice", "miou", "auroc", "ece")  # in the names of what is 1 at most
ACCURACY = {"train": "train_accuracy_best", "test": "test_accuracy_best"}  # as published
NOTHING = 1e-12  # what rounding leaves of 0
LEAST, MOST = 1e-4, 1e6  # what is further out is called so
WIDE = 30  # times a value: where an end lies further out, each number has its own digits
BY_RUN = "mbr,br->mb"  # `means.weighted` of metrics (M, B, R) with weights (B, R)
SINGLE = "single run, no interval"
ONE_PATIENT = "one test patient: the interval is over runs alone"
ALONE = "one test patient, no interval"
UNDEFINED = "not defined on the test set"
MISSED = "not defined for {} of {} classes in images, mostly as the prediction lacks them: flatters"
DEVICES = "of several devices"
ELSEWHERE = "without {} of {} runs, on other devices"
PER_IMAGE = "an image counts once, not a patient"
NOTES = {
    "test_accuracy_best": f"the epoch was chosen on the test set: no honest estimate; {PER_IMAGE}",
    **dict.fromkeys(("test_accuracy_last", "noisy_accuracy", "noisy_balanced_accuracy"), PER_IMAGE),
}


def table(results: Results) -> pd.DataFrame:
    """The table: `COLUMNS`, a row a setting and metric.

    `value` is the mean over the runs (folds and seeds) of the setting of a run's metric; on the
    test set that is one of `evaluation`, a patient counting once. `low` and `high` are the ends of
    its 95 % interval (`statistics.interval`), NaN where there is none; `level` says what chance
    drew: "patients and runs", "runs", "patients" or "none". A single run has no interval,
    because one training says nothing of the next; the constant predictor, mechanism "constant",
    is not trained and has one over patients (none of its accuracy over images). `runs`, `patients`
    and `images` are how many there are. `epsilon` is the largest of the runs, +inf where training
    is not private.
    """
    rows: list[dict[str, object]] = []
    with_constant: set[tuple[str, str]] = set()
    for setting, cells in results.settings():
        dataset, model = setting[:2]
        test = results.tests(cells)
        found = [*_scored(test), *_noisy(results, cells), *_measured(results, cells)]
        same = dict(zip(SETTING, setting, strict=True)) | _traits(cells) | _numbers(test)
        rows += [same | {"runs": len(cells)} | row for row in found]
        if (dataset, model) not in with_constant:
            with_constant.add((dataset, model))
            rows += _constant(results, dataset, model)
    return pd.DataFrame(rows, columns=COLUMNS)


def accuracy_table(frame: pd.DataFrame, parts: Mapping[str, str] = ACCURACY) -> pd.DataFrame:
    """A summary, or published numbers, in the shape of a table of a paper, in words.

    Args:
        frame: dataset, model, mechanism, privacy, metric, value and, where there are any, low and
            high.
        parts: {name of a row: its metric}, in this order.

    Returns:
        Rows dataset, model and part, columns mechanism and privacy, in the order of `frame`;
        percentages as of `text`, "–" where there is none.
    """
    rows = frame.reset_index(drop=True)
    rows["part"] = rows["metric"].map({metric: part for part, metric in parts.items()})
    numbers = 100 * rows.reindex(columns=["value", "low", "high"])
    rows["words"] = [text(*row, digits=4) for row in numbers.itertuples(index=False)]
    rows = rows.dropna(subset="part")
    index, columns = ["dataset", "model", "part"], ["mechanism", "privacy"]
    table = rows.pivot_table("words", index, columns, aggfunc="first", fill_value="–")
    settings = rows[["dataset", "model"]].drop_duplicates().itertuples(index=False, name=None)
    order = [(*setting, part) for setting in settings for part in parts]
    across = pd.MultiIndex.from_frame(rows[columns].drop_duplicates())
    return table.reindex([row for row in order if row in table.index])[across]


def text(value: float, low: float = math.nan, high: float = math.nan, digits: int = 3) -> str:
    """A value with its interval, "0.731 [0.702, 0.755]": `digits` significant ones of the largest,
    or of each where the end of a ratio is far out, "2.04 [0.0344, 121]".

    Without brackets where there is no interval; "–" where there is no value.
    """
    if math.isnan(value):
        return "–"
    numbers = [value] if math.isnan(low) else [value, low, high]
    numbers = [number if abs(number) > NOTHING else 0.0 for number in numbers]
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0)
    places = max(0, digits - 1 - math.floor(math.log10(largest))) if largest else 0
    if largest > WIDE * numbers[0] > 0 and min(numbers) >= 0:
        words = [_of_ratio(number, digits) for number in numbers]
    else:
        words = [f"{number:z,.{places}f}".replace("inf", "∞") for number in numbers]
    return words[0] if len(words) == 1 else f"{words[0]} [{words[1]}, {words[2]}]"


def _of_ratio(number: float, digits: int) -> str:
    """A number of whatever size without an exponent: "0.0344", "1,210", "<0.0001", ">1,000,000"."""
    if 0 < number < LEAST:
        return f"<{LEAST:.4f}"
    if number > MOST:
        return f">{MOST:,.0f}"
    words = f"{number:.{digits}g}"
    return f"{float(words):,.0f}" if "e" in words else words


def _traits(cells: pd.DataFrame) -> dict[str, object]:
    numbers = {
        "noise_multiplier": cells["noise_multiplier"].mean(),
        "epsilon": cells["epsilon"].max(),
    }
    return cells[TRAITS].iloc[0].to_dict() | numbers


def _numbers(test: Evaluation | None) -> dict[str, int]:
    if test is None:
        return {"patients": 0, "images": 0}
    return {"patients": len(test.patients), "images": test.images}


def _noisy(results: Results, cells: pd.DataFrame) -> list[dict[str, object]]:
    """The Dice on the test images with the noise of a local cell."""
    rows = _scored(results.tests(cells, "model_on_noisy"))
    return [row | {"metric": "noisy_dice"} for row in rows if row["metric"] == "dice"]


def _constant(results: Results, dataset: str, model: str) -> list[dict[str, object]]:
    """Rows of the constant predictor, of one run of each fold: in the others it is the same."""
    cells = results.cells
    cells = cells[(cells["dataset"] == dataset) & (cells["model"] == model)].drop_duplicates("fold")
    test = results.tests(cells, CONSTANT)
    if test is None:
        return []
    same = {"dataset": dataset, "model": model, "mechanism": CONSTANT, "privacy": "none"}
    names = ("engine", "mode", "clipping", "clipping_style", "layer_thresholds")
    same |= dict.fromkeys(names, "none")
    same |= {"noise_multiplier": 0.0, "epsilon": math.inf, "runs": len(test.runs)} | _numbers(test)
    return [same | row for row in (*_scored(test, trained=False), *_always(cells))]


def _always(cells: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of the accuracy of the constant predictor over images: it has no best epoch."""
    value = cells.reindex(columns=[ALWAYS]).mean().item()
    if math.isnan(value):  # nothing was classified
        return []
    same = {"value": value, "low": math.nan, "high": math.nan, "level": "none", "note": PER_IMAGE}
    return [{"metric": name} | same for name in (ACCURACY["test"], "test_accuracy_last")]


def _scored(test: Evaluation | None, trained: bool = True) -> list[dict[str, object]]:
    """Rows of the test metrics."""
    if test is None:
        return []
    runs = pd.factorize(independent(test.runs.to_frame(name=RUN)))[0]
    units = [np.arange(len(test.patients)), runs if trained else 0 * runs]
    sizes = {"patients": len(test.patients), "runs": len(test.runs) if trained else 1}

    def over_runs(patients: np.ndarray, runs: np.ndarray) -> np.ndarray:
        return means.weighted(BY_RUN, np.stack(list(test.scores(patients).values())), runs)

    everyone = np.ones((1, len(test.patients)))
    values = over_runs(everyone, np.ones((1, len(runs))))[:, 0]
    single = trained and sizes["runs"] == 1
    ends = _nothing(len(values)) if single else statistics.interval(over_runs, units)
    level = " and ".join(kind for kind, number in sizes.items() if number > 1)
    limits = SINGLE * single
    if not single and sizes["patients"] == 1:
        limits = ONE_PATIENT if sizes["runs"] > 1 else ALONE
    missed = {name: MISSED.format(*of) for name, of in test.missed.items() if of[0]}
    return [
        {"metric": metric, "value": value, "low": low, "high": high}
        | {"level": "none" if single else level or "none"}
        | {"note": _joined(limits, UNDEFINED * math.isnan(value), missed.get(metric, ""))}
        for metric, value, low, high in zip(test.scores(everyone), values, *ends, strict=True)
        for low, high in [_possible(metric, low, high)]
    ]


def _measured(results: Results, cells: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of what is measured once a run, and of its ratio to what is not private."""
    known = [name for name in results.numbers if cells[name].notna().any()]
    mixed = DEVICES * (len(set(cells["device"])) > 1)
    rows = [_row(name, name, mixed * (name in ON_DEVICE), cells) for name in known]
    same = results.cells.merge(cells[["dataset", "model"]].drop_duplicates())
    reference = same[same["engine"] == "none"]
    device = cells.loc[cells["device"].isin(reference["device"]), "device"].mode()
    if cells["engine"].iloc[0] == "none" or device.empty:
        return rows
    both = [part[part["device"] == device[0]] for part in (cells, reference)]
    here = len(both[0])
    others = ELSEWHERE.format(len(cells) - here, len(cells)) * (here < len(cells))
    return rows + [_row(RATIOS[name], name, others, *both) for name in RATIOS if name in known]


def _row(metric: str, column: str, note: str, *cells: pd.DataFrame) -> dict[str, object]:
    """The row of a metric that is the mean of a column of cells, over that of others if given."""
    parts = [part[column].to_numpy(float)[None] for part in cells]

    def mean(*weights: np.ndarray) -> np.ndarray:
        found = [
            means.weighted("mr,br->mb", part, w) for part, w in zip(parts, weights, strict=True)
        ]
        return np.log(found[0] / found[1]) if len(found) > 1 else found[0]

    found = mean(*(np.ones_like(part) for part in parts))[..., 0]
    single = min(len(part) for part in cells) == 1
    units = [pd.factorize(independent(part))[0] for part in cells]
    ends = _nothing(1) if single else statistics.interval(mean, units)
    value, low, high = (np.exp(one) if len(cells) > 1 else one for one in (found, *ends))
    low, high = _possible(metric, low, high)
    return {
        "metric": metric,
        "value": value.item(),
        "low": low.item(),
        "high": high.item(),
        "level": "none" if single else "runs",
        "note": _joined(SINGLE * single, NOTES.get(metric, ""), note),
    }


def _possible(metric: str, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of an interval, no further out than what is measured can be."""
    lowest = -1.0 if metric == "kappa" else 0.0
    highest = 1.0 if metric == "kappa" or any(name in metric for name in SHARES) else math.inf
    return np.maximum(low, lowest), np.minimum(high, highest)


def _nothing(number: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(number, math.nan), np.full(number, math.nan)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
