"""The task classification: its loss, its scores, and the training loop on it."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_cells import EXECUTION, PRIVATE, same_weights
from little_cells import settings as cell_settings

from dpmedbench import cells, checkpoint, tasks
from dpmedbench.classification_metrics import METRICS, ClassificationScores, confusion, scores
from dpmedbench.config import load
from dpmedbench.errors import UserError
from dpmedbench.losses import classification_loss
from dpmedbench.training import Trainer
from dpmedbench.training_data import Data

CLASSES = 3
quick = settings(max_examples=40, deadline=None)


@st.composite
def answered(draw) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, C) with many ties, and labels (n,)."""
    count, size = draw(st.integers(2, 4)), draw(st.integers(1, 25))
    cells = st.lists(st.integers(1, 4), min_size=count, max_size=count)
    rows = draw(st.lists(cells, min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size))
    weights = np.array(rows, float)
    return weights / weights.sum(1, keepdims=True), np.array(labels, np.uint8)


# The loss


@quick
@given(st.integers(0, 5), st.booleans(), st.integers(0, 2**31))
def test_the_loss_is_the_weighted_surprise_of_each_sample_alone(size, weighted, seed):
    made = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, CLASSES, dtype=torch.float64, generator=made)
    labels = torch.randint(CLASSES, (size,), dtype=torch.uint8, generator=made)
    weights = [0.25, 1.0, 3.5] if weighted else None
    found = classification_loss(logits, labels, weights)
    assert found.shape == (size,)
    for row, label, value in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        surprise = math.log(sum(math.exp(entry) for entry in row)) - row[label]
        assert value == pytest.approx(surprise * (weights[label] if weights else 1), abs=1e-12)
    for one in range(size):
        alone = classification_loss(logits[one : one + 1], labels[one : one + 1], weights)
        torch.testing.assert_close(found[one], alone[0])


def test_the_loss_is_in_float32_under_autocast():
    logits, labels = torch.tensor([[0.5, -1.25, 3.0]]), torch.tensor([1], dtype=torch.uint8)
    exact = classification_loss(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = classification_loss(logits.bfloat16(), labels, [1.0, 1.0, 1.0])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)


# The scores


@quick
@given(answered())
def test_scores_equal_what_counting_gives(made):
    probabilities, labels = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {name: score.value for name, score in scores(probabilities, labels).items()}
    assert set(found) == set(METRICS)
    classes = probabilities.shape[1]
    answers = [max(range(classes), key=lambda c: (row[c], -c)) for row in probabilities]
    pairs = list(zip(labels.tolist(), answers, strict=True))
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    present = sorted(set(labels.tolist()))
    recalls = [np.mean([b == c for a, b in pairs if a == c]) for c in present]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if len(present) == 1:
        assert math.isnan(found["auroc"])
        assert math.isnan(found["kappa"])
        return
    areas = []
    for c in present:
        inside, outside = probabilities[labels == c, c], probabilities[labels != c, c]
        wins = [(a > b) + (a == b) / 2 for a in inside for b in outside]
        areas.append(np.mean(wins))
    assert found["auroc"] == pytest.approx(np.mean(areas))
    seen = np.mean([(a - b) ** 2 for a, b in pairs])
    by_chance = np.mean([(a - b) ** 2 for a, b in itertools.product(labels.tolist(), answers)])
    assert found["kappa"] == pytest.approx(1 - seen / by_chance)


@quick
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 5))
def test_the_calibration_error_equals_a_loop_over_bins(seed, images, classes):
    made = np.random.default_rng(seed)
    probabilities = made.dirichlet(np.full(classes, 0.5), images)
    labels = made.integers(0, classes, images)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16)):
        inside = (low < sure) & (sure <= high)
        if inside.any():
            expected += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
    assert scores(probabilities, labels)["ece"].value == pytest.approx(expected, abs=1e-5)


@quick
@given(answered())
def test_the_confusion_matrix_counts_truths_by_row(made):
    probabilities, labels = made
    answers, classes = probabilities.argmax(1), probabilities.shape[1]
    found = confusion(answers, labels, classes)
    assert found.shape == (classes, classes)
    for truth, answer in itertools.product(range(classes), repeat=2):
        assert found[truth, answer] == ((labels == truth) & (answers == answer)).sum()


def test_what_is_not_defined_says_why():
    certain = np.eye(3)[[0, 0, 2]]
    one = scores(certain, np.array([0, 0, 0]))
    assert one["accuracy"].value == one["balanced_accuracy"].value == pytest.approx(2 / 3)
    for name in ("auroc", "kappa"):
        assert math.isnan(one[name].value)
        assert one[name].note == "every image is of class 0"
    two = scores(certain, np.array([0, 0, 2]))
    assert two["auroc"] == (1.0, "no image of class 1")
    assert two["kappa"] == (1.0, None)
    lost = scores(np.full((2, 3), np.nan), np.array([0, 1]))
    assert all(math.isnan(value) and "not finite" in note for value, note in lost.values())


def test_scores_of_batches_are_those_of_the_whole_and_of_no_batch_nothing():
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(9, CLASSES, generator=made)
    labels = torch.randint(CLASSES, (9,), dtype=torch.uint8, generator=made)
    gathered = ClassificationScores(CLASSES)
    assert all(math.isnan(value) for value in gathered.compute().values())
    for part in (slice(0, 4), slice(4, 4), slice(4, 9)):
        gathered.update(logits[part], labels[part])
    whole = scores(logits.double().softmax(1).numpy(), labels.numpy())
    assert gathered.compute() == {name: score.value for name, score in whole.items()}


def test_sure_answers_are_ranked_by_how_sure_they_are():
    """In float32 every probability here is 1."""
    gathered = ClassificationScores(2)
    gathered.update(torch.tensor([[0.0, 20.0], [0.0, 25.0]]), torch.tensor([0, 1]))
    assert gathered.compute()["auroc"] == 1


# The task


def test_the_constant_predictor_answers_the_commonest_training_class():
    task = tasks.load("classification")(CLASSES)
    row = task.constant_row(np.array([2, 2, 0], np.uint8), torch.tensor([2, 0, 1, 1]), "test")
    expected = {"accuracy": 0.25, "balanced_accuracy": 1 / 3, "auroc": 0.5, "kappa": 0.0}
    assert row == pytest.approx({f"constant_test_{k}": v for k, v in expected.items()}
                                | {"constant_test_ece": 0.75})  # fmt: skip


def test_weights_are_one_for_each_class():
    task = tasks.load("classification")(2, [1.0, 2.0])
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    torch.testing.assert_close(task.loss(logits, labels), math.log(2) * torch.tensor([1.0, 2.0]))
    with pytest.raises(UserError, match="class_weights: found 2 numbers, expected one for each"):
        tasks.load("classification")(3, [1.0, 2.0])


def test_weights_in_the_configuration_reach_the_task():
    values = {
        "study": "s",
        "datasets": {"chest_xray": {"class_weights": [3, 0.5]}, "aptos": None},
        "models": {"resnet18": None},
        "mechanisms": {"plain": {"engine": "none"}},
        "grids": [{"datasets": ["chest_xray", "aptos"], "models": ["resnet18"],
                   "mechanisms": ["plain"]}],
    }  # fmt: skip
    study = load(values)
    chest, aptos = (cells.settings(study, cell)["task"] for cell in cells.every(study))
    assert (chest, aptos) == ({"class_weights": [3, 0.5]}, {})


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({"loader": "chest_xray", "class_weights": [1, 2, 3]}, "3 numbers, .* normal, pneumonia"),
        ({"loader": "duke", "class_weights": [1, 2]}, "for classification, duke is not"),
        ({"loader": "aptos", "class_weights": "balanced"}, "class_weights: found 'balanced'"),
        ({"loader": "chest_xray", "class_weights": [1, 0]}, "greater than 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(dataset, sentence):
    values = {
        "study": "s",
        "datasets": {"it": dataset},
        "models": {"resnet18": None},
        "mechanisms": {"plain": {"engine": "none"}},
        "grids": [{"datasets": ["it"], "models": ["resnet18"], "mechanisms": ["plain"]}],
    }
    with pytest.raises(UserError, match=sentence):
        load(values)


# The loop


def data(records=48, seed=0):
    """Pictures whose brightness tells their class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(records) % CLASSES).astype(np.uint8)
    noise = rng.integers(0, 60, (records, 16, 16))
    images = (labels[:, None, None] * 80 + noise).astype(np.uint8)
    half, rest = records // 4, records * 5 // 8
    return Data(
        train=(images[:half], labels[:half]),
        val=(images[half:rest], labels[half:rest]),
        test=(images[rest:], labels[rest:]),
        task="classification",
        channels=1,
        num_classes=CLASSES,
        digest=f"{records}-{seed}",
    )


def trained(folder, mechanism=None, task=None, execution=EXECUTION, **options):
    wanted = cell_settings(mechanism, **options)
    wanted["model"] = {"network": "resnet18", "features": [4, 8], "num_groups": 2}
    wanted["task"] = task or {}
    cell = Trainer(wanted, execution, data(), folder)
    cell.run()
    return cell


def test_ordinary_training_learns_and_records_every_part(tmp_path):
    cell = trained(tmp_path, epochs=30)
    first, last = cell.history[0], cell.history[-1]
    assert last["train_loss"] < 0.5 * first["train_loss"]
    for part in ("train", "val", "test"):
        assert last[f"{part}_accuracy"] > 0.8 > 0.5 > last["constant_val_accuracy"]
        assert {f"{part}_{metric}" for metric in (*METRICS, "loss")} <= set(last)
    assert last["val_auroc"] > 0.95
    assert not any("dice" in column for column in last)


def test_accuracy_in_training_is_of_the_logits_that_were_trained_on(tmp_path):
    """With a learning rate of nothing, and no step between, it is that of the weights."""
    execution = EXECUTION | {"physical_batch_size": 2}
    cell = trained(tmp_path, execution=execution, epochs=1, learning_rate=1e-12)
    images, labels = cell.data.train
    cell.network.train()
    with torch.no_grad():
        answers = cell.network(torch.tensor(images[:, None] / 255).float()).argmax(1).numpy()
    assert cell.history[0]["train_accuracy"] == pytest.approx((answers == labels).mean())


@pytest.mark.parametrize(
    "mechanism",
    [PRIVATE, {"engine": "bookkeeping", "clipping": "automatic", "clipping_style": "per_layer"}],
)
def test_private_training_keeps_its_contract(tmp_path, mechanism):
    cell = trained(tmp_path, mechanism, task={"class_weights": [1.0, 2.0, 0.5]})
    assert cell.observed["steps"] == 9
    assert 0 <= cell.history[-1]["train_accuracy"] <= 1
    assert math.isfinite(cell.history[-1]["test_loss"])


@pytest.mark.parametrize("mechanism", [None, PRIVATE])
def test_a_killed_cell_resumes_bit_equal(tmp_path, mechanism, monkeypatch):
    straight = trained(tmp_path / "straight", mechanism, selection="best_validation")
    saved = checkpoint.save

    def save_and_die(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", mechanism, selection="best_validation")
    monkeypatch.setattr(checkpoint, "save", saved)
    resumed = trained(tmp_path / "killed", mechanism, selection="best_validation")
    assert same_weights(straight.weights(), resumed.weights())
    for one, other in zip(straight.history, resumed.history, strict=True):
        timeless = [key for key in one if "seconds" not in key]
        np.testing.assert_equal([one[k] for k in timeless], [other[k] for k in timeless])


def test_the_test_set_selects_nothing(tmp_path, monkeypatch):
    """The epoch with the best balanced accuracy on validation data is reported, whatever else."""
    found = iter([(0.2, 0.9), (0.8, 0.1), (0.5, 1.0)])
    honest, weights = Trainer._validate, []

    def validate(self):
        weights.append(self._current_weights())
        val, test = next(found)
        return honest(self) | {"val_balanced_accuracy": val, "test_accuracy": test,
                               "test_balanced_accuracy": test}  # fmt: skip

    monkeypatch.setattr(Trainer, "_validate", validate)
    cell = trained(tmp_path, selection="best_validation")
    assert same_weights(cell.weights(), weights[1])
    assert not same_weights(weights[1], weights[2])
