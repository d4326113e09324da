"""Local differential privacy: what it promises, and who is trained on it."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import little_cells
import made_up
import numpy as np
import pandas as pd
import pytest
import torch
from default_study import DEFAULT, changed
from toy_store import LABELS, SPEC, perturbed, written

from dpmedbench import cells, config, outcome, prediction, splits, store
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import capabilities
from dpmedbench.models import build
from dpmedbench.privacy import local
from dpmedbench.training import Trainer
from dpmedbench.training_data import load

# Who is trained on it


@pytest.fixture
def fold(tmp_path):
    """(store, split file, store with noise)."""
    source = written(tmp_path)
    with store.open_store(source) as opened:
        frame = splits.make(
            opened.patients, opened.sources, opened.official, method="official",
            ratios=(0.5, 0.5, 0.0), lists=None, folds=1, seed=0,
        )  # fmt: skip
        splits.write(frame, tmp_path / "splits.csv", opened)
    return source, tmp_path / "splits.csv", perturbed(source, beta=2.0)


def settings(**noise):
    """The settings of a local cell, or of an ordinary one where there is no noise."""
    ways = {"engine": "local", "mode": noise["mode"]} if noise else {"engine": "none"}
    found = little_cells.settings(ways, epochs=2)
    found["model"] = {"network": "resnet18", "features": [4, 8], "num_groups": 2}
    found["mechanism"] |= {"beta": noise["beta"]} if noise else {}
    found["identity"] |= {"noise_multiplier": None}
    return found


def test_training_and_validation_are_noisy_and_the_test_is_both(fold):
    source, split_file, noisy = fold
    plain, data = load(source, split_file, 0), load(source, split_file, 0, noisy)
    assert (plain.scored, data.scored) == (("val", "test"), ("val", "test", "test_noisy"))
    for part, kind in (("train", np.int16), ("val", np.int16), ("test", np.uint8)):
        assert getattr(data, part)[0].dtype == kind
        np.testing.assert_array_equal(getattr(data, part)[1], getattr(plain, part)[1])
    np.testing.assert_array_equal(data.test[0], plain.test[0])
    assert data.test_noisy[0].dtype == np.int16
    assert data.digest != plain.digest


def test_the_digest_tells_who_is_trained_and_who_is_validated_on(tmp_path):
    """The same records in the same order, parted elsewhere: no checkpoint of one is the other's."""
    source, names, found = written(tmp_path), [f"patient {k}" for k in range(8)], set()
    with store.open_store(source) as opened:
        for first in (4, 5):
            path = tmp_path / f"{first}.csv"
            lists = {"test": names[:2], "train": names[2:first], "val": names[first:]}
            frame = splits.make(opened.patients, opened.sources, method="lists", lists=lists)
            splits.write(frame, path, opened)
            found.add(load(source, path, 0).digest)
    assert len(found) == 2


def test_noise_on_other_data_is_refused(fold, tmp_path):
    source, split_file, _ = fold
    (tmp_path / "other").mkdir()
    other = perturbed(written(tmp_path / "other", size=(16, 16)))
    with pytest.raises(UserError, match=r"found the noisy images of other data, expected those"):
        load(source, split_file, 0, other)


LAPLACE_2, LAPLACE_1 = ({"mode": "laplace", "beta": beta} for beta in (2.0, 1.0))
SCALAR_2 = {"mode": "scalar_per_image", "beta": 2.0}


@pytest.mark.parametrize(
    ("wanted", "noisy"), [(LAPLACE_1, True), (SCALAR_2, True), (LAPLACE_2, False), ({}, True)]
)
def test_a_cell_has_the_noise_that_it_is_named_after(wanted, noisy, fold, tmp_path):
    source, split_file, with_noise = fold
    data = load(source, split_file, 0, with_noise if noisy else None)
    with pytest.raises(UserError, match=r"training images: found .*, expected .*; delete the file"):
        Trainer(settings(**wanted), little_cells.EXECUTION, data, tmp_path)


def test_a_local_cell_trains_and_records_what_it_promises(fold, tmp_path):
    source, split_file, noisy = fold
    noisy_data = load(source, split_file, 0, noisy)
    cell = Trainer(settings(**LAPLACE_2), little_cells.EXECUTION, noisy_data, tmp_path / "state")
    cell.run()
    row = outcome.history(cell)[-1]
    assert {"test_accuracy", "test_noisy_accuracy", "val_accuracy"} <= set(row)
    assert row["epsilon"] == math.inf
    found = outcome.privacy(cell)
    assert (found["beta"], found["epsilon_per_pixel"]) == (2.0, 0.5)
    assert found["epsilon_per_image"] == 24 * 20 / 2.0
    assert "labels are not protected" in found["note"]
    assert (found["epsilon"], found["noise_additions"]) == (None, 0)


def test_the_scalar_is_never_called_private():
    promise = local.promise("scalar_per_image", 4.0, 100)
    assert promise["epsilon_per_pixel"] is promise["epsilon_per_image"] is None
    assert promise["note"].startswith("no privacy")
    assert not capabilities("local").private


def test_the_epsilon_of_an_image_counts_its_channels():
    assert local.promise("laplace", 4.0, 256 * 256 * 3)["epsilon_per_image"] == 49_152


@pytest.mark.parametrize("spec", [SPEC, LABELS], ids=lambda spec: spec.task)
def test_the_test_set_is_scored_with_and_without_noise(spec, tmp_path):
    source = written(tmp_path, spec, size=(32, 32))
    noisy = perturbed(source, beta=4.0)
    outputs = SimpleNamespace(**{n: tmp_path / n for n in ("masks", "predictions", "scores")})
    torch.manual_seed(0)
    network = {"segmentation": "unet", "classification": "resnet18"}[spec.task]
    model = build(network, 1, 3, features=(4, 8), num_groups=2)
    history = made_up.history(made_up.grid(("aptos",), ("resnet18",))[1], 2)
    with store.open_store(source) as clean, store.open_store(noisy) as with_noise:
        parts = {"train": np.arange(4, 16), "test": np.arange(4)}
        prediction.load(spec.task).write(outputs, clean, parts, model, history, with_noise)
        everything = pd.read_parquet(outputs.scores)
        prediction.load(spec.task).write(outputs, clean, parts, model, history)
    plain = pd.read_parquet(outputs.scores)
    own = everything["predictor"] == "model_on_noisy"
    pd.testing.assert_frame_equal(everything[~own].reset_index(drop=True), plain)
    of_model = plain[plain["predictor"] == "model"]
    assert own.sum() == len(of_model)
    value = "dice" if spec.task == "segmentation" else "value"
    assert not np.array_equal(everything.loc[own, value], of_model[value], equal_nan=True)


# The configuration


LOCAL = [("mechanisms.noisy", {"engine": "local"}), ("grids.0.mechanisms", ["noisy"])]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (LOCAL, r"grids\[0\]: mechanism noisy needs beta"),
        (
            [("grids.0.beta", [1])],
            r"grids\[0\].beta: found \[1.0\], but none of its mechanisms is local; leave it out or",
        ),
        ([*LOCAL, ("grids.0.beta", [0])], r"grids.0.beta.0: found 0, input should be greater"),
        (
            [("mechanisms.noisy", {"engine": "local", "clipping": "abadi"})],
            r"engine local in mode laplace cannot do clipping abadi",
        ),
        (
            [("mechanisms.noisy", {"engine": "local", "mode": "gauss"})],
            r"mode is 'gauss', allowed for engine local are \['laplace', 'scalar_per_image'\]",
        ),
    ],
)
def test_mistakes_are_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        config.load(changed(*changes))


def test_cells_that_agree_in_their_noise_share_their_images():
    changes = [
        ("mechanisms.noisy", {"engine": "local"}),
        ("mechanisms.noisy_slow", {"engine": "local", "learning_rate": 1e-4}),
        ("mechanisms.scalar", {"engine": "local", "mode": "scalar_per_image"}),
        ("grids", DEFAULT["grids"][:1]),
        ("grids.0.mechanisms", ["non_private", "noisy", "noisy_slow", "scalar"]),
        ("grids.0.beta", [1, 2]),
        ("grids.0.seeds", [0, 1]),
    ]
    study = config.load(changed(*changes))
    found = {cell.folder: cells.noise(study, cell) for cell in cells.every(study)}
    noisy = {json.dumps(noise) for noise in found.values() if noise}
    assert len(noisy) == 2 * 2
    labels = {cell.privacy for cell in cells.every(study) if cell.beta}
    assert labels == {"beta1", "beta2"}
    cell = next(cell for cell in cells.every(study) if cell.beta == 2)
    assert cells.settings(study, cell)["mechanism"]["beta"] == 2
    assert cells.noise(study, cell)["seed"] == study.datasets[cell.dataset].noise_seed
    secure = config.load(changed(*changes, ("privacy.secure_rng", True)))
    assert cells.noise(secure, cell)["seed"] is None
