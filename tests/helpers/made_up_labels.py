"""Made-up classifications: the columns and tables that only cells of that task have."""

from __future__ import annotations

import numpy as np

CLASSES = {
    "chest_xray": ("normal", "pneumonia"),
    "aptos": ("no DR", "mild", "moderate", "severe", "proliferative"),
}
METRICS = ("accuracy", "balanced_accuracy", "auroc", "kappa", "ece")
COMMONEST = 0.6  # share of the images that are of class 0


def history_columns(
    loss: np.ndarray, progress: np.ndarray, quality: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Scores of training, validation and test after each epoch, and of the constant predictor."""
    epochs = len(progress)
    columns = {}
    for part, gain in (("train", 0.05), ("val", 0.0), ("test", -0.03)):
        accuracy = 0.5 + (quality - 0.4) * progress + gain + rng.normal(0, 0.012, epochs)
        accuracy = np.clip(accuracy, 0, 1)
        if part != "train":
            columns[f"{part}_loss"] = loss + 0.06 + rng.normal(0, 0.03, epochs)
        for metric, lower in zip(METRICS, (0, 0.04, -0.03, 0.3, 0.7), strict=True):
            columns[f"{part}_{metric}"] = np.clip(accuracy - lower, 0, 1)
    for part in ("val", "test"):
        for metric, value in zip(METRICS, (COMMONEST, 0.5, 0.5, 0.0, 1 - COMMONEST), strict=True):
            columns[f"constant_{part}_{metric}"] = np.full(epochs, value)
    return columns


def _answers(
    classes: int, quality: float, images: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    truths = np.where(np.arange(images) < COMMONEST * images, 0, np.arange(images) % classes)
    wrong = rng.random(images) > quality
    return truths, np.where(wrong, rng.integers(0, classes, images), truths)


def prediction_columns(
    classes: tuple[str, ...], quality: float, images: int, rng: np.random.Generator
) -> dict[str, object]:
    """What is answered for each test image, two images a patient."""
    truths, answers = _answers(len(classes), quality, images, rng)
    sure = rng.uniform(0.6, 1, images)
    others = (1 - sure) / (len(classes) - 1)
    names = np.array(classes)
    return {
        "record": np.arange(images),
        "source": [f"image_{i}" for i in range(images)],
        "patient": [f"patient_{i // 2}" for i in range(images)],
        "label": truths,
        "predicted": answers,
        "label_name": names[truths].tolist(),
        "predicted_name": names[answers].tolist(),
    } | {f"probability_{c}": np.where(answers == c, sure, others) for c in range(len(classes))}


def score_columns(
    classes: tuple[str, ...], quality: float, images: int, rng: np.random.Generator
) -> dict[str, list]:
    """The long table of scores: of the model, of the constant predictor, of two epochs."""
    rows = []
    truths, answers = _answers(len(classes), quality, images, rng)
    for predictor, given in (("model", answers), ("constant", np.zeros_like(truths))):
        right = given == truths
        balanced = np.mean([right[truths == c].mean() for c in np.unique(truths)])
        values = (right.mean(), balanced, 0.5 + quality / 2, balanced - 0.1, 0.1)
        rows += [
            {"predictor": predictor, "metric": metric, "value": value}
            for metric, value in zip(METRICS, values, strict=True)
        ]
        rows += [
            {
                "predictor": predictor,
                "metric": "confusion",
                "class": truth,
                "class_name": classes[truth],
                "predicted": answer,
                "value": float(((truths == truth) & (given == answer)).sum()),
            }
            for truth in range(len(classes))
            for answer in range(len(classes))
        ]
    for predictor, note in (("last_epoch", None), ("test_selected", "chosen on the test set")):
        rows += [
            {"predictor": predictor, "metric": metric, "value": value, "note": note}
            for metric, value in (("epoch", 2.0), ("train_accuracy", 0.9), ("accuracy", 0.8))
        ]
    columns = ("predictor", "metric", "class", "class_name", "predicted", "value", "note")
    return {column: [row.get(column) for row in rows] for column in columns}
