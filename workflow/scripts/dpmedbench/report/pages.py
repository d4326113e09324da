"""What stands on each page of tables: texts for people, numbers for a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from dpmedbench import published, summary
from dpmedbench.figures import STUDIES, wording
from dpmedbench.files import replacing
from dpmedbench.report import PAGES, html, latex
from dpmedbench.report.numbers import with_epsilon
from dpmedbench.results import CONSTANT

Groups = dict[str, pd.DataFrame]

# columns of a page, in the order they stand; what a dataset has not is left out
UTILITY = {
    "dice": "Dice without background",
    "dice_with_background": "Dice",
    "miou": "mean IoU",
    "hd95": "HD95 (px)",
    "boundary_mae": "boundary error (px)",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "kappa": "kappa",
    "ece": "calibration error",
    "noisy_dice": "Dice on noisy images",
    "noisy_accuracy": "accuracy on noisy images (per image)",
    "step_seconds_ratio": "step time, ratio",
}
COST = {
    "step_seconds": "step (ms)",
    "step_seconds_ratio": "step, ratio",
    "epoch_seconds": "epoch (s)",
    "images_per_second": "images a second",
    "peak_bytes": "peak memory (MiB)",
    "peak_bytes_ratio": "peak memory, ratio",
}
LAST_EPOCH = {"train": "train_accuracy", "test": "test_accuracy_last"}
UNITS = {"step_seconds": 1000, "peak_bytes": 2**-20}  # of the shown columns


def write(name: str, tables: Mapping[str, pd.DataFrame], paths: Mapping[str, str]) -> None:
    """Write page `name` from its tables to the paths of its "html", "csv" and "tex"."""
    found, numbers = BUILDERS[name](*(tables[need] for need in PAGES[name].needs))
    about = PAGES[name].title, PAGES[name].caption
    contents = {
        "html": html.page(*about, found),
        "tex": latex.tables(found, *about, name),
        "csv": numbers.to_csv(index=False),
    }
    for suffix, content in contents.items():
        with replacing(paths[suffix]) as temporary:
            temporary.write_text(content, encoding="utf-8")


def claims(table: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """The published claims, a table a study."""
    shown = {
        "claim": "claim",
        "source": "where",
        "statistic": "decided by",
        "finding": "in this run",
        "verdict": "verdict",
    }
    found = {
        STUDIES[study]: rows[list(shown)].replace("", "–").rename(columns=shown)
        for study, rows in table.groupby("study", sort=False)
    }
    return found, table


def results(table: pd.DataFrame, privacy: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """Utility and epsilon of every setting."""
    return _settings(table, privacy, UTILITY, ["patients", "runs"])


def accuracy(table: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """Accuracy in the shape of the published table, beside the published numbers."""
    metrics = {*summary.ACCURACY.values(), *LAST_EPOCH.values()}
    numbers = _constant_first(table[table["metric"].isin(metrics)])
    if numbers.empty:
        return {}, numbers
    return {
        "This run, best epoch": _across(numbers, summary.ACCURACY),
        "This run, last epoch": _across(numbers, LAST_EPOCH),
        "As published, 50 epochs": _across(published.table("local_dp"), summary.ACCURACY),
    }, numbers


def _across(numbers: pd.DataFrame, parts: Mapping[str, str]) -> pd.DataFrame:
    """`summary.accuracy_table` with headings in one line."""
    table = summary.accuracy_table(numbers, parts)
    table.columns = [wording.setting(*column) for column in table.columns]
    return table.reset_index()


def cost(table: pd.DataFrame, privacy: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """Time and memory of every setting."""
    return _settings(table, privacy, COST, ["runs"])


def comparisons(table: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """Pairs of mechanisms, a table a dataset, model and metric."""
    found = {}
    for (dataset, model, metric), rows in table.groupby(["dataset", "model", "metric"], sort=False):
        scale = UNITS.get(metric, 1)
        ends = (rows[name] * scale for name in ("difference", "low", "high"))
        found[f"{dataset}, {wording.name(model)}: {(UTILITY | COST)[metric]}"] = pd.DataFrame(
            {
                "noise": rows["privacy"].map(_noise),
                "first": rows["first"].map(wording.name),
                "second": rows["second"].map(wording.name),
                "second minus first": [*map(summary.text, *ends)],
                "p (Holm)": rows["p_holm"].map(summary.text),
                "pairs": rows["pairs"].map("{:.0f}".format),
                "the second is": rows["verdict"],
                "note": rows["note"],
            }
        )
    return found, table


def engines(rows: pd.DataFrame) -> tuple[Groups, pd.DataFrame]:
    """The support table of the engines (`support.rows`)."""
    return {"": rows.replace({True: "yes", False: "no"})}, rows


def _settings(
    table: pd.DataFrame, privacy: pd.DataFrame, metrics: Mapping[str, str], counts: Sequence[str]
) -> tuple[Groups, pd.DataFrame]:
    """Settings x metrics that have a value, and of how many patients or runs; a table a dataset
    and model."""
    numbers = _constant_first(table[table["metric"].isin(metrics)])
    scale = numbers["metric"].map(UNITS).fillna(1)
    ends = (numbers[name] * scale for name in ("value", "low", "high"))
    numbers = numbers.assign(text=[*map(summary.text, *ends)])
    key = ["mechanism", "privacy"]
    found = {}
    for (dataset, model), rows in numbers.groupby(["dataset", "model"], sort=False):
        settings = with_epsilon(rows.drop_duplicates(key), privacy).set_index(key)
        known = rows[rows["value"].notna()]
        texts = known.pivot_table("text", key, "metric", aggfunc="first").reindex(settings.index)
        shown = {name: title for name, title in metrics.items() if name in texts}
        found[f"{dataset}, {wording.name(model)}"] = pd.DataFrame(
            {
                "mechanism": [wording.name(mechanism) for mechanism, _ in settings.index],
                "noise": [_noise(privacy) for _, privacy in settings.index],
                "epsilon": settings["epsilon_text"].array,
                **{title: texts[name].fillna("–").array for name, title in shown.items()},
                **{name: settings[name].map("{:.0f}".format).array for name in counts},
            }
        )
    return found, numbers.drop(columns="text")


def _constant_first(numbers: pd.DataFrame) -> pd.DataFrame:
    return numbers.sort_values("mechanism", key=lambda name: name != CONSTANT, kind="stable")


def _noise(privacy: str) -> str:
    return "–" if privacy == "none" else wording.noise_name(privacy)


BUILDERS = {
    "claims": claims,
    "results": results,
    "accuracy": accuracy,
    "cost": cost,
    "comparisons": comparisons,
    "engines": engines,
}
