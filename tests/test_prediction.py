"""The test set: weights, masks and score table."""

from __future__ import annotations

import contextlib
import json
import math
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_up import grid, history
from safetensors.torch import save_file

from dpmedbench import models
from dpmedbench.errors import UserError
from dpmedbench.inputs import to_input
from dpmedbench.prediction import load_weights
from dpmedbench.prediction.segmentation import predict, score_table, write, write_masks

IDENTITY = {
    "study": "s",
    "dataset": "phantom",
    "model": "unet",
    "mechanism": "non_private",
    "privacy": "none",
    "fold": 0,
    "seed": 1,
    "engine": "none",
    "clipping": "none",
    "clipping_style": "none",
    "noise_multiplier": 0.0,
    "target_epsilon": math.nan,
}
SCORES = [
    *("predictor", "record", "source", "patient", "class", "class_name"),
    *("present", "dice", "iou", "hd95", "boundary_mae", "pixels"),
]


class FakeStore:
    """What prediction needs of a store, with the records whose images were read and the largest
    number at once."""

    def __init__(self, records: int = 7, channels: int = 1) -> None:
        made = np.random.default_rng(0)
        shape = (records, 12, 10) if channels == 1 else (records, 12, 10, channels)
        self.images = made.integers(0, 256, shape, dtype=np.uint8)
        self.targets = made.integers(0, 4, (records, 12, 10), dtype=np.uint8)
        self.targets[:, :, 0] = 255
        self.classes, self.boundaries, self.channels = (
            ("background", "a", "b", "fluid"),
            3,
            channels,
        )
        self.image_size = (12, 10)
        self.patients = np.array([f"Subject_{i // 3}" for i in range(records)])
        self.sources = np.array([f"Subject_{i // 3}/B-scan {i}" for i in range(records)])
        self.read_records, self.most_read = [], 0

    def read(self, indices):
        self.read_records += list(indices)
        self.most_read = max(self.most_read, len(indices))
        return self.images[indices], self.targets[indices]


def small(channels: int = 1, classes: int = 4) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build("unet", channels, classes, features=(4, 8), num_groups=2)


@pytest.fixture
def masks(tmp_path):
    path = tmp_path / "masks.h5"
    write_masks(path, FakeStore(), np.array([1, 2, 4, 6]), small(), IDENTITY)
    return path


def test_to_input() -> None:
    gray = np.array([[[0, 51], [255, 102]]], np.uint8)
    expected = torch.tensor([[[[0, 0.2], [1, 0.4]]]])
    torch.testing.assert_close(to_input(gray), expected)
    torch.testing.assert_close(to_input(torch.from_numpy(gray)), expected)
    colour = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    found = to_input(colour)
    assert found.shape == (2, 3, 4, 5)
    assert found.dtype == torch.float32
    assert found[1, 2, 3, 4] == pytest.approx(colour[1, 3, 4, 2] / 255)
    with pytest.raises(ValueError, match="expected uint8"):
        to_input(gray.astype(np.float32))


def test_predict_is_the_largest_logit() -> None:
    store, model = FakeStore(), small()
    with torch.no_grad():
        expected = model.eval()(to_input(store.images)).argmax(1).numpy()
    assert len(np.unique(expected)) > 1
    found = predict(model, store.images)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_weights_come_back(tmp_path) -> None:
    model, path = small(), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    other = models.build("unet", 1, 4, features=(4, 8), num_groups=2)
    load_weights(other, path)
    for found, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_weights_that_do_not_fit_are_named(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(small(classes=3).state_dict(), path)
    with pytest.raises(UserError, match=r"found \(3, 4, 1, 1\) for last.weight, expected \(4, 4"):
        load_weights(small(), path)
    state = small().state_dict()
    del state["last.bias"]
    save_file(state, path)
    with pytest.raises(UserError, match=r"found nothing for last\.bias"):
        load_weights(small(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="no readable safetensors"):
        load_weights(small(), path)
    with pytest.raises(UserError, match=r"absent.safetensors: found no readable"):
        load_weights(small(), tmp_path / "absent.safetensors")


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_hold_the_test_records(tmp_path, channels: int) -> None:
    store, model, path = FakeStore(40, channels), small(channels), tmp_path / "masks.h5"
    records = np.arange(1, 40, 2)
    write_masks(path, store, records, model, IDENTITY)
    assert store.most_read == 16
    with h5py.File(path) as file:
        assert set(file) == {"records", "source", "patient", "images", "truth", "prediction"}
        np.testing.assert_array_equal(file["records"], records)
        np.testing.assert_array_equal(file["images"], store.images[records])
        np.testing.assert_array_equal(file["truth"], store.targets[records])
        np.testing.assert_array_equal(file["prediction"], predict(model, store.images[records]))
        assert file["source"].asstr()[:].tolist() == store.sources[records].tolist()
        assert file["patient"].asstr()[:].tolist() == store.patients[records].tolist()
        assert json.loads(file.attrs["classes"]) == list(store.classes)
        assert (file.attrs["boundaries"], file.attrs["ignore_index"]) == (3, 255)
        assert {name: file.attrs[name] for name in IDENTITY} == pytest.approx(IDENTITY, nan_ok=True)


def test_of_the_training_set_the_masks_alone_are_read(tmp_path) -> None:
    store = FakeStore(9)
    store.targets[:6, :9] = 2  # the constant predictor learns from these
    store.targets[6:] = 3
    outputs = SimpleNamespace(masks=tmp_path / "masks.h5", scores=tmp_path / "scores.parquet")
    splits = {"train": np.arange(6), "test": np.arange(6, 9)}
    write(outputs, store, splits, small(), history(grid()[1], 1))
    assert sorted(store.read_records) == [6, 7, 8]
    frame = pq.read_table(outputs.scores).to_pandas()
    constant = frame[frame["predictor"] == "constant"]
    assert constant.loc[constant["class"] >= 2, "dice"].eq(0).all()


def test_a_failed_prediction_leaves_no_file(tmp_path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("broken")

    with contextlib.suppress(RuntimeError):
        write_masks(tmp_path / "masks.h5", FakeStore(), np.array([0]), Broken(), IDENTITY)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no test image"):
        write_masks(tmp_path / "masks.h5", FakeStore(), np.array([], int), small(), IDENTITY)


def test_score_table(masks) -> None:
    table = score_table(masks, 2, IDENTITY)
    assert table.column_names == [*IDENTITY, *SCORES]
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types["fold"] == types["record"] == types["class"] == types["pixels"] == "int64"
    assert types["target_epsilon"] == types["dice"] == types["boundary_mae"] == "double"
    assert types["present"] == "bool"
    assert types["study"] == types["class_name"] == types["source"] == "string"

    frame = table.to_pandas()
    assert len(frame) == 4 * 4 * 2  # images, classes, predictors
    assert frame.study.eq("s").all()
    constant = frame[frame.predictor == "constant"]
    assert constant[constant["class"] != 2].dice.eq(0).all()
    assert constant[constant["class"] == 2].dice.gt(0).all()
    with h5py.File(masks) as file:
        truth, prediction = file["truth"][2], file["prediction"][2]
    row = frame[(frame.predictor == "model") & (frame.record == 4) & (frame.class_name == "b")]
    graded = truth != 255
    both = ((truth == 2) & (prediction == 2)).sum()
    each = (truth == 2).sum() + ((prediction == 2) & graded).sum()
    assert row.dice.item() == pytest.approx(2 * both / each)
    assert row.source.item() == "Subject_1/B-scan 4"
    assert row.pixels.item() == (truth == 2).sum()
