"""Predicted masks of the test set (`masks.h5`) and the scores of each image and class."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.console import track
from dpmedbench.constant_predictor import most_frequent_class
from dpmedbench.datasets.base import IGNORE
from dpmedbench.errors import UserError
from dpmedbench.files import replacing
from dpmedbench.inputs import to_input
from dpmedbench.prediction import batches, identity
from dpmedbench.segmentation_metrics import image_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from dpmedbench.store import Store


def write(
    outputs,
    store: Store,
    splits: Mapping[str, np.ndarray],
    model: torch.nn.Module,
    history: pa.Table,
    noisy: Store | None = None,
) -> None:
    """Write `outputs.masks` and `outputs.scores`; `prediction` explains the arguments."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    name = identity(history)
    write_masks(outputs.masks, store, splits["test"], model, name)
    constant = most_frequent_class(store.targets[row] for row in splits["train"])
    scores = score_table(outputs.masks, constant, name)
    if noisy:
        with tempfile.TemporaryDirectory() as folder:
            masks = Path(folder) / "masks.h5"
            write_masks(masks, noisy, splits["test"], model, name)
            rows = score_table(masks, constant, name).filter(pc.field("predictor") == "model")
        place = rows.column_names.index("predictor")
        named = pa.array(["model_on_noisy"] * rows.num_rows)
        scores = pa.concat_tables([scores, rows.set_column(place, "predictor", named)])
    with replacing(outputs.scores) as temporary:
        pq.write_table(scores, temporary, compression="zstd")


def predict(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The most likely class of each pixel: uint8 images (n, H, W[, 3]) to uint8 labels (n, H, W).

    Runs in float32 on the CPU, where `model` must be; it is put into evaluation mode.
    """
    import torch

    model.eval()
    with torch.inference_mode():
        return model(to_input(images)).argmax(1).to(torch.uint8).numpy()


def write_masks(
    path: str | Path,
    store: Store,
    records: np.ndarray,
    model: torch.nn.Module,
    identity: Mapping[str, object],
) -> None:
    """Predict the test `records` (row numbers of `store`) and write them to an HDF5 file.

    Datasets, a row a record: `/records`, `/source`, `/patient`, `/images` (n, H, W[, 3]),
    `/truth` and `/prediction` (n, H, W) uint8. Attributes: `classes` (JSON list), `boundaries`,
    `ignore_index` and the `identity` of the cell.
    """
    import h5py

    records = np.asarray(records)
    if not len(records):
        raise UserError(f"{path}: found no test image, expected at least one; check the splits")
    height, width = store.image_size
    gray = (len(records), height, width)
    shapes = {
        "images": gray if store.channels == 1 else (*gray, store.channels),
        "truth": gray,
        "prediction": gray,
    }
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["records"] = records
        for name, values in (("source", store.sources), ("patient", store.patients)):
            file.create_dataset(name, data=list(values[records]), dtype=h5py.string_dtype())
        for name, shape in shapes.items():
            options = {"chunks": (1, *shape[1:]), "compression": "gzip", "shuffle": True}
            file.create_dataset(name, shape, np.uint8, **options)
        file.attrs["classes"] = json.dumps(list(store.classes))
        file.attrs["boundaries"] = store.boundaries
        file.attrs["ignore_index"] = IGNORE
        file.attrs.update(identity)
        parts = batches(len(records))
        for part in track(parts, "Predicting the test set (batches)", total=len(parts)):
            images, truth = store.read(records[part])
            file["images"][part] = images
            file["truth"][part] = truth
            file["prediction"][part] = predict(model, images)


def score_table(masks: str | Path, constant_class: int, identity: Mapping[str, object]) -> pa.Table:
    """Scores of the file of `write_masks`: a row per image, predictor and class.

    The columns: `identity` first, then `predictor` ("model", or "constant" which answers
    `constant_class` everywhere), `record`, `source`, `patient`, `class`, `class_name` and the
    scores of `segmentation_metrics.image_scores`.
    """
    import h5py
    import pyarrow as pa

    parts = []
    with h5py.File(masks) as file:
        classes = json.loads(file.attrs["classes"])
        boundaries = int(file.attrs["boundaries"])
        records = file["records"][:]
        sources, patients = (file[name].asstr()[:] for name in ("source", "patient"))
        for row in track(range(len(records)), "Scoring the test set", total=len(records)):
            truth, prediction = file["truth"][row], file["prediction"][row]
            answers = {"model": prediction, "constant": np.full_like(truth, constant_class)}
            for predictor, answer in answers.items():
                scores = image_scores(answer, truth, len(classes), boundaries)
                same = {
                    **identity,
                    "predictor": predictor,
                    "record": int(records[row]),
                    "source": sources[row],
                    "patient": patients[row],
                }
                columns = {name: [value] * len(classes) for name, value in same.items()}
                columns["class"] = scores.pop("class")
                columns["class_name"] = classes
                parts.append(pa.table(columns | scores))
    return pa.concat_tables(parts)
