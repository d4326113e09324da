"""The test set of a classification: predicted labels and the table of scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_up import grid, history

from dpmedbench import models, prediction
from dpmedbench.classification_metrics import METRICS
from dpmedbench.inputs import to_input
from dpmedbench.tables import IDENTITY

CELL = grid(("aptos",), ("resnet18",))[1]
CLASSES = ("none", "some", "much")
TRAIN, TEST = np.arange(20), np.arange(20, 60)


class FakeStore:
    """What prediction needs of a store, with the records whose images were read and the largest
    number at once."""

    def __init__(self) -> None:
        made = np.random.default_rng(0)
        self.images = made.integers(0, 256, (60, 12, 10), dtype=np.uint8)
        self.targets = (np.arange(60) % 3).astype(np.uint8)
        self.targets[:10] = 1
        self.classes = CLASSES
        self.patients = np.array([f"patient {i // 2}" for i in range(60)])
        self.sources = np.array([f"image {i}" for i in range(60)])
        self.read_records, self.most_read = [], 0

    def read(self, indices):
        self.read_records += list(indices)
        self.most_read = max(self.most_read, len(indices))
        return self.images[indices], self.targets[indices]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(store, model, history, predictions, scores)."""
    folder = tmp_path_factory.mktemp("cell")
    outputs = SimpleNamespace(predictions=folder / "p.parquet", scores=folder / "s.parquet")
    store, epochs = FakeStore(), history(CELL, 5)
    torch.manual_seed(0)
    model = models.build("resnet18", 1, len(CLASSES), features=(4, 8), num_groups=2)
    splits = {"train": TRAIN, "test": TEST}
    prediction.load("classification").write(outputs, store, splits, model, epochs)
    return store, model, epochs, pq.read_table(outputs.predictions), pq.read_table(outputs.scores)


def test_predictions_are_the_most_probable_class_of_each_record(written):
    store, model, _, table, _ = written
    assert table.column_names == [
        *IDENTITY,
        *("record", "source", "patient", "label", "predicted", "label_name", "predicted_name"),
        *(f"probability_{c}" for c in range(3)),
    ]
    frame = table.to_pandas()
    assert store.most_read == 16
    assert sorted(store.read_records) == TEST.tolist()  # of the training set the labels alone
    with torch.no_grad():
        logits = model.eval()(to_input(store.images[TEST]))
    expected = torch.softmax(logits.double(), 1).numpy()
    np.testing.assert_allclose(frame.filter(like="probability_"), expected, rtol=1e-4)
    np.testing.assert_array_equal(frame["predicted"], expected.argmax(1))
    assert frame["record"].tolist() == TEST.tolist()
    assert frame["label"].tolist() == store.targets[TEST].tolist()
    assert frame["source"].tolist() == store.sources[TEST].tolist()
    assert frame["patient"].tolist() == store.patients[TEST].tolist()
    assert (frame["label_name"] == [CLASSES[c] for c in frame["label"]]).all()
    assert (frame["predicted_name"] == [CLASSES[c] for c in frame["predicted"]]).all()
    assert (frame["mechanism"] == CELL.mechanism).all()


def test_scores_are_of_the_predictions_and_of_the_constant_predictor(written):
    *_, predictions, table = written
    types = {field.name: field.type for field in table.schema}
    assert types["value"] == pa.float64()
    assert types["class"] == types["predicted"] == types["fold"] == pa.int64()
    frame, answers = table.to_pandas(), predictions.to_pandas()
    constant = np.ones(len(TEST), int)
    for predictor, given in (("model", answers["predicted"].to_numpy()), ("constant", constant)):
        rows = frame[frame["predictor"] == predictor]
        value = rows[rows["metric"] != "confusion"].set_index("metric")["value"]
        assert set(value.index) == set(METRICS)
        right = answers["label"] == given
        assert value["accuracy"] == pytest.approx(right.mean())
        recalls = right.groupby(answers["label"]).mean()
        assert value["balanced_accuracy"] == pytest.approx(recalls.mean())
        confusion = rows[rows["metric"] == "confusion"]
        assert len(confusion) == 9
        for row in confusion.itertuples():
            truth = answers["label"] == confusion["class"][row.Index]
            assert row.value == (truth & (given == row.predicted)).sum()
            assert row.class_name == CLASSES[int(confusion["class"][row.Index])]


def test_the_best_epoch_is_marked_as_test_selected(written):
    _, _, epochs, _, table = written
    frame, epochs = table.to_pandas(), epochs.to_pandas()
    best = epochs.loc[epochs["test_accuracy"].idxmax()]
    for predictor, row, note in (
        ("last_epoch", epochs.iloc[-1], None),
        ("test_selected", best, "the epoch was chosen on the test set: no honest estimate"),
    ):
        rows = frame[frame["predictor"] == predictor].set_index("metric")
        assert rows["value"].to_dict() == {
            "epoch": row["epoch"],
            "train_accuracy": row["train_accuracy"],
            "accuracy": row["test_accuracy"],
        }
        assert [n if isinstance(n, str) else None for n in rows["note"]] == [note] * 3
