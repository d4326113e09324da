"""Made-up cells: every file that figures and tables read, plausible and quick to write."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import made_up_labels
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_up_scans import CLASSES, scans

from dpmedbench.datasets.base import IGNORE

TRAINING_RECORDS = {"duke": 88, "umn": 575, "chest_xray": 400, "aptos": 300}
DELTA = 1e-5


@dataclass(frozen=True)
class Cell:
    """The identity of a cell, columns in the order of every table."""

    study: str
    dataset: str
    model: str
    mechanism: str
    privacy: str
    fold: int
    seed: int
    engine: str
    mode: str
    clipping: str
    clipping_style: str
    noise_multiplier: float
    target_epsilon: float

    @property
    def private(self) -> bool:
        return self.privacy != "none"

    @property
    def folder(self) -> Path:
        return Path(
            self.dataset,
            self.model,
            self.mechanism,
            self.privacy,
            f"fold{self.fold}",
            f"seed{self.seed}",
        )


def grid(
    datasets: Sequence[str] = ("duke",),
    models: Sequence[str] = ("unet",),
    mechanisms: Sequence[str] = ("non_private", "opacus_flat", "opacus_per_layer"),
    sigmas: Sequence[float] = (1.0,),
    folds: int = 1,
    seeds: int = 1,
    study: str = "made_up",
) -> list[Cell]:
    """The cells of a study; `non_private` has no noise level."""
    return [
        Cell(
            study=study,
            dataset=dataset,
            model=model,
            mechanism=mechanism,
            privacy=f"sigma{sigma:g}" if sigma else "none",
            fold=fold,
            seed=seed,
            engine="opacus" if sigma else "none",
            mode="hooks" if sigma else "autograd",
            clipping="abadi" if sigma else "none",
            clipping_style="flat" if sigma else "none",
            noise_multiplier=sigma,
            target_epsilon=math.nan,
        )
        for dataset in datasets
        for model in models
        for mechanism in mechanisms
        for sigma in ((0.0,) if mechanism == "non_private" else sigmas)
        for fold in range(folds)
        for seed in range(seeds)
    ]


def write(
    root: Path,
    cells: Sequence[Cell],
    epochs: int = 4,
    images: int = 3,
    size: tuple[int, int] | None = None,
) -> list[Path]:
    """Write the files of each cell that are collected below `root`, and masks.h5 of segmentation
    where a picture `size` is given; return the folders."""
    folders = []
    for cell in cells:
        folder = Path(root) / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(history(cell, epochs), folder / "history.parquet")
        pq.write_table(scores(cell, images), folder / "scores.parquet")
        (folder / "cost.json").write_text(json.dumps(cost(cell, epochs)))
        (folder / "privacy.json").write_text(json.dumps(privacy(cell, epochs)))
        if cell.dataset in made_up_labels.CLASSES:
            pq.write_table(predictions(cell, images), folder / "predictions.parquet")
        if size is not None and cell.dataset in CLASSES:
            write_masks(folder / "masks.h5", cell, images, size)
        folders.append(folder)
    return folders


def _rng(cell: Cell, what: str) -> np.random.Generator:
    return np.random.default_rng(list(f"{cell.folder}/{what}".encode()))


def _quality(cell: Cell) -> float:
    """The Dice that a cell ends with."""
    rank = sum(cell.mechanism.encode()) % 7 / 100
    best = 0.84 if cell.dataset == "umn" else 0.8
    fall = 0.0 if not cell.private else 0.12 + rank + 0.3 * cell.noise_multiplier
    return best - fall - (0.02 if cell.model == "nested_unet" else 0.0)


def _slowness(cell: Cell) -> float:
    per_mechanism = 1.0 if not cell.private else 1.5 + sum(cell.mechanism.encode()) % 5 / 4
    return per_mechanism * (2.6 if cell.model == "nested_unet" else 1.0)


def _epsilon(cell: Cell, step: np.ndarray, rate: float, factor: float = 1.0) -> np.ndarray:
    """Of the right size and shape; not the output of any accountant."""
    if not cell.private:
        return np.full(len(step), np.inf)
    mu = rate * np.sqrt(step * math.expm1(min(1 / cell.noise_multiplier**2, 5.5)))
    return factor * (mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / DELTA)))


def history(cell: Cell, epochs: int) -> pa.Table:
    """history.parquet of a cell."""
    rng = _rng(cell, "history")
    records = TRAINING_RECORDS[cell.dataset]
    batch, rate = 10, 10 / records
    epoch = np.arange(1, epochs + 1)
    steps = math.ceil(records / batch)
    progress = 1 - np.exp(-3 * epoch / max(epochs, 4))
    train = 1.9 - 1.5 * _quality(cell) * progress + rng.normal(0, 0.015, epochs)
    seconds = _slowness(cell) * steps * 0.11 * rng.lognormal(0, 0.04, epochs)
    norm = np.exp(-progress) * rng.lognormal(0, 0.1, epochs)
    absent = np.full(epochs, math.nan)
    private = np.full(epochs, 1.0) if cell.private else absent
    values: dict[str, object] = {
        "epoch": epoch,
        "step": steps * epoch,
        "samples": rng.binomial(records * steps, rate, epochs),
        "empty_batches": np.zeros(epochs, np.int64),
        "seconds": seconds,
        "validation_seconds": np.full(epochs, 0.4),
        "elapsed_seconds": np.cumsum(seconds + 0.4),
        "train_loss": train,
    }
    if cell.dataset in made_up_labels.CLASSES:
        values |= made_up_labels.history_columns(train, progress, _quality(cell), rng)
    else:
        values |= _dice_columns(cell, train, progress, rng)
    values |= {
        "grad_norm_p10": norm * 0.6 * private,
        "grad_norm_p50": norm * private,
        "grad_norm_p90": norm * 1.9 * private,
        "clipped_fraction": np.clip(norm, 0, 1) * private,
        "learning_rate": np.full(epochs, 5e-4),
        "weight_decay": np.full(epochs, 1e-4),
        "batch_size": np.full(epochs, batch),
        "physical_batch_size": np.full(epochs, batch),
        "epochs": np.full(epochs, epochs),
        "max_grad_norm": private,
        "effective_max_grad_norm": private,
        "sample_rate": rate * private,
        "delta": DELTA * private,
    }
    for column, factor in EPSILONS.items():
        values[column] = _epsilon(cell, steps * epoch, rate, factor)
    values["device"] = ["made-up device"] * epochs
    return pa.table(_identity(cell, epochs) | values)


def _dice_columns(
    cell: Cell, train: np.ndarray, progress: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    classes, epochs = len(CLASSES[cell.dataset]), len(progress)
    dice = np.clip(_quality(cell) * progress + rng.normal(0, 0.012, epochs), 0.02, 1)
    values = {
        "val_loss": train + 0.06 + rng.normal(0, 0.03, epochs),
        "val_dice": dice,
        "val_dice_with_background": (dice * (classes - 1) + 0.97) / classes,
        "val_miou": dice / (2 - dice),
        "val_pixel_accuracy": 0.83 + 0.15 * dice,
    }
    values |= {f"val_dice_{c}": np.clip(dice + 0.05 * math.cos(c), 0, 1) for c in range(classes)}
    return values | {
        "constant_val_dice": np.zeros(epochs),
        "constant_val_dice_with_background": np.full(epochs, 0.9 / classes),
        "constant_val_miou": np.full(epochs, 0.83 / classes),
        "constant_val_pixel_accuracy": np.full(epochs, 0.83),
    }


EPSILONS = {
    "epsilon": 1.0,
    "epsilon_rdp": 1.12,
    "epsilon_prv": 1.0,
    "epsilon_gdp": 0.93,
    "epsilon_pld": 0.99,
}


def _identity(cell: Cell, rows: int) -> dict[str, list]:
    return {name: [value] * rows for name, value in asdict(cell).items()}


def scores(cell: Cell, images: int) -> pa.Table:
    """scores.parquet of a cell: `images` test images, each class, model and constant predictor."""
    rng = _rng(cell, "scores")
    if cell.dataset in made_up_labels.CLASSES:
        classes = made_up_labels.CLASSES[cell.dataset]
        columns = made_up_labels.score_columns(classes, _quality(cell), 20 * images, rng)
        return pa.table(_identity(cell, len(columns["metric"])) | columns)
    classes = CLASSES[cell.dataset]
    count, total = len(classes), images * len(classes)
    number = np.tile(np.arange(count), images)
    record = np.repeat(np.arange(images), count) + 100 * cell.fold
    ease = 0.08 * np.cos(1.3 * number) + 0.15 * (number == 0)
    dice = np.clip(_quality(cell) + ease + rng.normal(0, 0.03, total), 0, 1)
    constant = np.where(number == 0, 0.9, 0.0)
    both = np.concatenate([dice, constant])
    nan = np.full(total, math.nan)
    pixels = np.tile(np.where(number == 0, 40_000, 1_300), 2)
    patients = [f"Subject_{1 + r % 3:02d}" for r in record]
    return pa.table(
        _identity(cell, 2 * total)
        | {
            "predictor": ["model"] * total + ["constant"] * total,
            "record": np.tile(record, 2),
            "source": [f"{p}/B-scan {r}" for p, r in zip(patients, record, strict=True)] * 2,
            "patient": patients * 2,
            "class": np.tile(number, 2),
            "class_name": [classes[c] for c in number] * 2,
            "present": [True] * (2 * total),
            "dice": both,
            "iou": both / (2 - both),
            "hd95": np.concatenate([20 * (1 - dice), nan]),
            "boundary_mae": np.concatenate([np.where(number > 0, 8 * (1 - dice), math.nan), nan]),
            "pixels": pixels,
        }
    )


def predictions(cell: Cell, images: int) -> pa.Table:
    """predictions.parquet of a classification: the answers that `scores` counts."""
    columns = made_up_labels.prediction_columns(
        made_up_labels.CLASSES[cell.dataset], _quality(cell), 20 * images, _rng(cell, "scores")
    )
    return pa.table(_identity(cell, 20 * images) | columns)


def _json_identity(cell: Cell) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(cell).items()
    }


def cost(cell: Cell, epochs: int) -> dict[str, object]:
    """cost.json of a cell."""
    step = 0.11 * _slowness(cell) * _rng(cell, "cost").lognormal(0, 0.02)
    steps = math.ceil(TRAINING_RECORDS[cell.dataset] / 10)
    return _json_identity(cell) | {
        "device": "made-up device",
        "num_parameters": 7_760_000,
        "batch_size": 10,
        "physical_batch_size": 10,
        "step_seconds_p10": 0.93 * step,
        "step_seconds_p50": step,
        "step_seconds_p90": 1.12 * step,
        "step_seconds_mean": 1.01 * step,
        "steps_measured": steps * epochs - 3,
        "epoch_seconds_p50": steps * step,
        "images_per_second": 10 / step,
        "peak_host_bytes": int(2**30 * (1.1 + 0.7 * _slowness(cell))),
        "peak_gpu_bytes": None,
        "training_seconds": epochs * steps * step,
        "validation_seconds": 0.4 * epochs,
        "start_to_first_step_seconds": 6.2,
    }


def privacy(cell: Cell, epochs: int) -> dict[str, object]:
    """privacy.json of a cell: what is not private has neither a budget nor noise."""
    records = TRAINING_RECORDS[cell.dataset]
    steps, rate = math.ceil(records / 10) * epochs, 10 / records
    promise: dict[str, object] = {
        "unit": "image",
        "sampling": "poisson",
        "neighbouring": "add_remove",
        "accountant": "prv",
        "delta": DELTA,
        "num_records": records,
        "sample_rate": rate,
        "steps": steps,
        "epochs": epochs,
        "noise_std": cell.noise_multiplier,
        "max_grad_norm": 1.0,
        "effective_max_grad_norm": 1.0,
    }
    for column, factor in EPSILONS.items():
        promise[column] = float(_epsilon(cell, np.array([steps]), rate, factor)[0])
    kept = {"num_records", "steps", "epochs"}
    if not cell.private:
        promise = {key: value if key in kept else None for key, value in promise.items()}
    return (
        _json_identity(cell)
        | promise
        | {
            "sampler": "poisson" if cell.private else "shuffle",
            "batch_size_expected": 10.0,
            "batch_size_realised_mean": 9.97,
            "empty_batches": 0,
            "noise_additions": steps if cell.private else 0,
        }
        | dict.fromkeys(("beta", "epsilon_per_pixel", "epsilon_per_image", "note"))
        | {"sparsification": 0.9 if "sparsi" in cell.mechanism else None}
        | {"noise_schedule": "constant" if cell.private else None}
    )


def write_masks(path: Path, cell: Cell, images: int, size: tuple[int, int]) -> None:
    """masks.h5 of a cell: the truth, and a prediction that is worse the more noise."""
    rng = _rng(cell, "masks")
    made = list(scans(cell.dataset, images, size, cell.fold))
    truth = np.stack([mask for *_, mask in made])
    shift = 1 + int(20 * (0.85 - _quality(cell)))
    prediction = np.roll(np.where(truth == IGNORE, 0, truth), shift, axis=1)
    wrong = rng.random(truth.shape) < 0.3 * (0.85 - _quality(cell))
    prediction[wrong] = 0
    with h5py.File(path, "w") as file:
        file["records"] = [record for record, *_ in made]
        file["patient"] = [patient for _, patient, *_ in made]
        file["source"] = [f"{patient}/B-scan {record}" for record, patient, *_ in made]
        file["images"] = np.stack([image for _, _, image, _ in made])
        file["truth"] = truth
        file["prediction"] = prediction.astype(np.uint8)
        file.attrs.update(asdict(cell))
        file.attrs["classes"] = json.dumps(CLASSES[cell.dataset])
        file.attrs["boundaries"] = 8 if cell.dataset == "duke" else 0
        file.attrs["ignore_index"] = IGNORE
