"""Predicted labels of the test set (`predictions.parquet`) and the scores of all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpmedbench import classification_metrics as metrics
from dpmedbench.console import track
from dpmedbench.constant_predictor import most_frequent_class
from dpmedbench.files import replacing
from dpmedbench.inputs import to_input
from dpmedbench.prediction import batches, identity

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from dpmedbench.store import Store

TEST_SELECTED = "the epoch was chosen on the test set: no honest estimate"


def write(
    outputs,
    store: Store,
    splits: Mapping[str, np.ndarray],
    model: torch.nn.Module,
    history: pa.Table,
    noisy: Store | None = None,
) -> None:
    """Write `outputs.predictions` and `outputs.scores`; `prediction` explains the arguments."""
    import pyarrow.parquet as pq

    name, test = identity(history), splits["test"]
    predictions = prediction_table(store, test, model, name)
    on_noisy = prediction_table(noisy, test, model, name) if noisy else None
    constant = most_frequent_class(store.targets[row] for row in splits["train"])
    scores = score_table(predictions, constant, store.classes, history, on_noisy)
    for path, table in ((outputs.predictions, predictions), (outputs.scores, scores)):
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def prediction_table(
    store: Store,
    records: np.ndarray,
    model: torch.nn.Module,
    identity: Mapping[str, object],
) -> pa.Table:
    """A row for each of `records` (row numbers of `store`).

    The columns: `identity` first, then `record`, `source`, `patient`, `label`, `predicted` (the
    most probable class), their names `label_name` and `predicted_name`, and `probability_<c>` in
    [0, 1] of each class. Runs in float32 on the CPU, where `model` must be; it is put into
    evaluation mode.
    """
    import pyarrow as pa
    import torch

    model.eval()
    probabilities = np.empty((len(records), len(store.classes)))
    labels = np.empty(len(records), np.int64)
    parts = batches(len(records))
    with torch.inference_mode():
        for part in track(parts, "Predicting the test set (batches)", total=len(parts)):
            images, labels[part] = store.read(records[part])
            logits = model(to_input(images))
            probabilities[part] = logits.double().softmax(1).numpy()
    predicted = probabilities.argmax(1)
    classes = np.asarray(store.classes)
    return pa.table(
        {name: [value] * len(records) for name, value in identity.items()}
        | {
            "record": records,
            "source": store.sources[records].tolist(),
            "patient": store.patients[records].tolist(),
            "label": labels,
            "predicted": predicted,
            "label_name": classes[labels].tolist(),
            "predicted_name": classes[predicted].tolist(),
        }
        | {f"probability_{c}": probabilities[:, c] for c in range(len(classes))}
    )


def score_table(
    predictions: pa.Table,
    constant_class: int,
    classes: Sequence[str],
    history: pa.Table,
    on_noisy: pa.Table | None = None,
) -> pa.Table:
    """Scores of the table of `prediction_table`, a row each.

    The columns: the identity of the cell first, then `predictor`, `metric`, `class`, `class_name`,
    `predicted`, `value` and `note` (what a reader must know of the value, or null). Predictors:

    - model, model_on_noisy (of the table `on_noisy`, where given) and constant, which is sure of
      `constant_class` for every image: the metrics of `classification_metrics.scores`, and
      `confusion`, the number of images of `class` that were answered `predicted` (null in all
      other rows, as is `class`);
    - last_epoch and test_selected, the epoch of `history` with the best test accuracy, the first
      of equals: `epoch` (from 1), `train_accuracy` as seen in training, and `accuracy`.
    """
    import pyarrow as pa

    labels = predictions["label"].to_numpy()
    sure = np.zeros((len(labels), len(classes)))
    sure[:, constant_class] = 1
    given = {"model": predictions} | ({} if on_noisy is None else {"model_on_noisy": on_noisy})
    columns = [f"probability_{c}" for c in range(len(classes))]
    answered = {
        predictor: np.stack([table[column].to_numpy() for column in columns], axis=1)
        for predictor, table in given.items()
    }
    rows = []
    for predictor, answers in (answered | {"constant": sure}).items():
        for metric, (value, note) in metrics.scores(answers, labels).items():
            rows.append({"predictor": predictor, "metric": metric, "value": value, "note": note})
        counts = metrics.confusion(answers.argmax(1), labels, len(classes))
        for (truth, answer), count in np.ndenumerate(counts):
            rows.append(
                {
                    "predictor": predictor,
                    "metric": "confusion",
                    "class": truth,
                    "class_name": classes[truth],
                    "predicted": answer,
                    "value": count,
                }
            )
    epochs = history.select(["epoch", "train_accuracy", "test_accuracy"]).to_pylist()
    best = max(epochs, key=lambda epoch: epoch["test_accuracy"])
    for predictor, epoch, note in (
        ("last_epoch", epochs[-1], None),
        ("test_selected", best, TEST_SELECTED),
    ):
        for metric, key in (
            ("epoch", "epoch"),
            ("train_accuracy", "train_accuracy"),
            ("accuracy", "test_accuracy"),
        ):
            rows.append(
                {"predictor": predictor, "metric": metric, "value": epoch[key], "note": note}
            )
    columns = {
        "predictor": pa.string(),
        "metric": pa.string(),
        "class": pa.int64(),
        "class_name": pa.string(),
        "predicted": pa.int64(),
        "value": pa.float64(),
        "note": pa.string(),
    }
    table = pa.Table.from_pylist(rows, pa.schema(columns))
    cell = pa.table({name: [value] * len(rows) for name, value in identity(predictions).items()})
    for name in columns:
        cell = cell.append_column(name, table[name])
    return cell
