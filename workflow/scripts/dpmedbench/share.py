"""What of a study may leave the place of its patients, in one zip file.

Everything in it is named here, one by one: what a later version adds to a cell stays at home.

- README.md says what is covered by which epsilon, and what stayed at home and why.
- models/<cell>/: the weights of cells whose epsilon covers them (`disclosure.uncovered`), their
  promise and how they were made.
- tables/summary.csv: scores of the test set and costs, over patients, of all cells. No epsilon
  covers test patients, whose scores are therefore means over at least `FEWEST` of them.
- tables/patients.csv, only where it is asked for: mean scores of each test patient.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench import disclosure, tables
from dpmedbench.archives import write_zip
from dpmedbench.errors import UserError
from dpmedbench.files import read_json
from dpmedbench.results import SETTING

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5  # patients in a mean: the smallest count of statistical offices
PROMISE = (
    *tables.IDENTITY, "unit", "sampling", "neighbouring", "accountant", "delta", "num_records",
    "sample_rate", "steps", "epochs", "batch_size_expected", "noise_std", "max_grad_norm",
    "effective_max_grad_norm", "epsilon", "epsilon_rdp", "epsilon_prv", "epsilon_gdp",
    "epsilon_pld",
)  # fmt: skip
ORIGIN = ("settings", "selection", "randomness", "mechanism", "code", "versions", "commit")
TEST = "dice|dice_with_background|miou|hd95|boundary_mae|accuracy|balanced_accuracy|auroc|kappa|ece"
FEW = r"dice_\d+|noisy_dice|noisy_accuracy|noisy_balanced_accuracy"  # few may have some class
COST = "(step|epoch)_seconds(_ratio)?|peak_bytes(_ratio)?"
VALUES = ("metric", "value", "low", "high", "level", "runs", "patients", "images")
SCORES = ("dice", "iou", "hd95", "boundary_mae")


def pack(path: Path, folders: Mapping[str, Path], summary: Path, scores: Path | None) -> None:
    """Write the zip file `path`.

    Args:
        folders: of the cells of the study, by name.
        summary: the table of that name.
        scores: the collected table; None: no rows of patients, and no mean over fewer than
            `FEWEST` of them.

    Raises:
        UserError: where a file is missing.
    """
    import pandas as pd

    cells = {name: _cell(Path(folder)) for name, folder in sorted(folders.items())}
    files = {}
    for name, cell in cells.items():
        if cell["why"] is None:
            files[f"models/{name}/{disclosure.MODEL}"] = cell["model"].read_bytes()
            for part in ("privacy", "manifest"):
                files[f"models/{name}/{part}.json"] = json.dumps(cell[part], indent=2).encode()
    rows, held_back = _scores(pd.read_parquet(summary), cells, scores is not None)
    files["tables/summary.csv"] = rows.to_csv(index=False, lineterminator="\n").encode()
    if scores is not None:
        key = "".join(sorted({cell["digest"] for cell in cells.values()}))
        patients = _patients(tables.read(scores), key)
        files["tables/patients.csv"] = patients.to_csv(index=False, lineterminator="\n").encode()
    files["README.md"] = _readme(cells, held_back, scores is not None).encode()
    write_zip(path, files)


def _cell(folder: Path) -> dict:
    """What is known of a cell, its files cut to what may be told."""
    try:
        privacy, manifest = (read_json(folder / f"{name}.json") for name in ("privacy", "manifest"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: found no finished cell ({error}), expected its files; run the study first"
        ) from error
    settings = manifest["settings"]
    why = disclosure.uncovered(settings, privacy["epsilon"])
    settings["model"].pop("weights_file", None)  # a path
    return {
        "model": folder / disclosure.MODEL,
        "why": why,
        "privacy": {name: privacy[name] for name in PROMISE},
        "manifest": {name: manifest[name] for name in ORIGIN},
        "digest": manifest["data"]["digest"],
    }


def _scores(summary: pd.DataFrame, cells: Mapping, small: bool) -> tuple[pd.DataFrame, int]:
    """The rows that may be told, with what covers them; how many are means over too few."""
    test, few, cost = (summary["metric"].str.fullmatch(names) for names in (TEST, FEW, COST))
    few |= test & ~(summary["patients"] >= FEWEST)
    held_back = few & (not small)
    rows = summary.loc[(test | few | cost) & ~held_back, [*SETTING, *VALUES]]
    covered = {}
    for cell in cells.values():
        covered.setdefault(tuple(cell["privacy"][name] for name in SETTING), []).append(cell)
    rows["training_patients"] = [
        _covered(covered.get(setting, [])) for setting in rows[SETTING].itertuples(index=False)
    ]
    rows.loc[cost, "training_patients"] = "not covered: follows the batches drawn"
    rows["test_patients"] = cost.map({True: "not used", False: "not covered"})[rows.index]
    return rows, int(held_back.sum())


def _covered(cells: list[dict]) -> str:
    """What covers the training patients of a value that was computed from some models."""
    if why := next((cell["why"] for cell in cells if cell["why"]), None):
        return f"not covered: {why}"
    return _together([cell["privacy"] for cell in cells]) if cells else "not covered"


def _together(promises: list[dict]) -> str:
    """What covers several models of the same patients: the sums, by basic composition."""
    epsilon, delta = (sum(promise[name] for promise in promises) for name in ("epsilon", "delta"))
    return f"epsilon {disclosure.at_least(epsilon)} at delta {delta:.4g}"


def _patients(scores: pd.DataFrame, key: str) -> pd.DataFrame:
    """Mean scores of each patient, who are numbered in an order that `key`, a secret, decides."""
    if "patient" not in scores:
        raise UserError(
            "share: found no scores of single patients, expected those of a segmentation; share "
            "without patients"
        )
    identity = [name for name in tables.IDENTITY if name not in ("study", "target_epsilon")]
    scores = scores.dropna(subset="patient")
    pairs = scores[["dataset", "patient"]].drop_duplicates()
    shuffled = sorted(
        pairs.itertuples(index=False, name=None),
        key=lambda pair: hmac.digest(key.encode(), "\0".join(pair).encode(), hashlib.sha256),
    )
    number = {pair: place for place, pair in enumerate(shuffled, start=1)}
    scores["patient"] = [
        number[pair] for pair in zip(scores["dataset"], scores["patient"], strict=True)
    ]
    groups = scores.groupby([*identity, "predictor", "patient", "class_name"], sort=True)
    return groups[list(SCORES)].mean().reset_index()


def _readme(cells: Mapping[str, dict], held_back: int, patients: bool) -> str:
    packed = {name: cell["privacy"] for name, cell in cells.items() if cell["why"] is None}
    models = [
        f"- {name}: {_together([promise])} ({promise['unit']}, {promise['neighbouring']}, "
        f"{promise['accountant']})"
        for name, promise in packed.items()
    ]
    if models:
        models += ["", "Whoever has all models of a dataset, which saw the same patients:", ""]
    for dataset in dict.fromkeys(promise["dataset"] for promise in packed.values()):
        promises = [promise for promise in packed.values() if promise["dataset"] == dataset]
        models.append(f"- {dataset} ({len(promises)}): at most {_together(promises)}")
    if len({promise["dataset"] for promise in packed.values()}) > 1:
        together = _together(list(packed.values()))
        models.append(f"- all, where these datasets are of the same patients: at most {together}")
    home = Counter(cell["why"] for cell in cells.values() if cell["why"])
    home = [f"- weights of cells ({number}): {why};" for why, number in home.items()]
    if held_back:
        home.append(f"- scores of single classes or of fewer than {FEWEST} patients ({held_back});")
    return README.format(
        study=next(iter(cells.values()))["privacy"]["study"],
        models="\n".join(models or ["None; see what stayed at home."]),
        home="\n".join(home),
        asked=PATIENTS if patients else "",
    )


PATIENTS = """
`tables/patients.csv` has the mean scores of each test patient, by number.
"""
README = """# Shared from the study {study}

Packed by DP-MedBench. No image, no name of a patient, no loss and no gradient norm is in here.

## Models

{models}

Epsilon and delta bound what a model tells about one training image; an epsilon above 10 bounds
little. About a patient with k images it may tell k times epsilon, at a larger delta. The number of
training images, the settings and the names of datasets and classes are taken as public. Choosing
settings by looking at the data is not paid for. `privacy.json` beside each model is its promise,
`manifest.json` how it was made.

## Scores

`tables/summary.csv` has costs, and mean scores of the test patients. Its column
`training_patients` says what covers those whom the models were trained on. No epsilon covers test
patients, of private models neither: a mean over few of them tells of each.
{asked}
## What stayed at home

{home}
- of every cell: images, masks, predictions, splits, scores of single images, losses and gradient
  norms, figures, checkpoints, logs.
"""
