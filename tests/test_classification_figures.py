"""The figures of classification, and those of both tasks on a classification."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import grid, write
from studies import lines, overlaps, texts

from dpmedbench import figures, tables

STUDIES = {
    "one_cell": (grid(("chest_xray",), ("resnet18",), ("opacus_flat",)), 1),
    "mixed": (
        grid(("duke",))
        + grid(
            ("aptos",),
            ("resnet18", "resnet18_wide"),
            ("non_private", "bookkeeping_automatic_mixopt", "opacus_flat"),
            sigmas=(1, 2, 4),
            seeds=2,
        ),
        20,
    ),
}
EITHER = {
    name
    for name, info in figures.catalog().items()
    if info.task != "segmentation" and "perturbed" not in info.needs
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """{study: what any figure of its classification needs}."""
    found = {}
    for name, (cells, epochs) in STUDIES.items():
        root = tmp_path_factory.mktemp(name)
        folders = write(root / "cells", cells, epochs, images=3)
        for kind in tables.KINDS:
            tables.collect(kind, folders, root / f"{kind}.parquet")
        found[name] = {
            kind: figures.load(root / f"{kind}.parquet", cells[-1].dataset) for kind in tables.KINDS
        }
    return found


def test_a_figure_is_for_one_task_or_for_both():
    tasks = {name: info.task for name, info in figures.catalog().items()}
    assert tasks["accuracy_over_epochs"] == tasks["confusion_matrix"] == "classification"
    assert tasks["test_dice"] == tasks["example_scans"] == "segmentation"
    assert tasks["training_loss"] is tasks["cost"] is None


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", sorted(EITHER))
def test_no_text_covers_another_or_leaves_the_page(name, study, inputs):
    assert overlaps(figures.draw(name, **inputs[study])) == []


@pytest.mark.parametrize("name", sorted(EITHER))
def test_a_dataset_without_rows_is_explained(name, inputs):
    empty = {}
    for kind, frame in inputs["mixed"].items():
        empty[kind] = frame.iloc[:0]
        empty[kind].attrs.update(frame.attrs, dataset="chest_xray")
    figure = figures.draw(name, **empty)
    said = " ".join(text.get_text().replace("\n", " ") for text, _ in texts(figure))
    assert "dataset chest_xray" in said
    assert overlaps(figure) == []


def test_the_loss_is_named_by_the_task(inputs):
    for name in ("training_loss", "validation_loss", "mean_validation_loss"):
        label = figures.draw(name, **inputs["mixed"]).axes[0].get_ylabel()
        assert label.endswith("(cross-entropy)"), name


def test_lines_of_accuracy_are_means_and_the_best_of_the_test_set_is_marked(inputs):
    history = inputs["mixed"]["history"]
    figure = figures.draw("accuracy_over_epochs", history=history)
    parts = [
        (model, part)
        for model in ("resnet18", "resnet18_wide")
        for part in ("train", "val", "test")
    ]
    for (model, part), axes in zip(parts, figure.axes, strict=True):
        rows = history[history["model"] == model]
        means = rows.groupby(["mechanism", "privacy", "epoch"])[f"{part}_accuracy"].mean()
        found = lines(axes)
        assert set(found) == {f"{m}/{p}" for m, p, _ in means.index}
        for setting, line in found.items():
            expected = means.loc[tuple(setting.split("/"))]
            np.testing.assert_allclose(line.get_ydata(), expected.to_numpy())
        best = [line for line in axes.get_lines() if line.get_label() == "best"]
        if part != "test":
            assert best == []
            continue
        expected = {(means.loc[key].idxmax(), means.loc[key].max()) for key in
                    {index[:2] for index in means.index}}  # fmt: skip
        marked = {(line.get_xdata()[0], line.get_ydata()[0]) for line in best}
        np.testing.assert_allclose(sorted(marked), sorted(expected))
        levels = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
        assert levels["constant predictor"] == pytest.approx(0.6)


def test_a_confusion_matrix_has_the_shares_of_each_class(inputs):
    scores = inputs["mixed"]["scores"]
    figure = figures.draw("confusion_matrix", scores=scores)
    assert len(figure.axes) == 1 + 2 * 7
    first = figure.axes[0].collections[0].get_array().reshape(5, 5)
    np.testing.assert_array_equal(first, np.eye(5)[[0] * 5])
    rows = scores[
        (scores["predictor"] == "model")
        & (scores["metric"] == "confusion")
        & (scores["model"] == "resnet18")
        & (scores["mechanism"] == "opacus_flat")
        & (scores["privacy"] == "sigma4")
    ]
    counts = rows.pivot_table(index="class", columns="predicted", values="value", aggfunc="sum")
    expected = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    drawn = [
        axes for axes in figure.axes if axes.get_title().startswith("ResNet18\nOpacus flat\nσ = 4")
    ]
    shown = drawn[0].collections[0].get_array().reshape(5, 5)
    np.testing.assert_allclose(shown, expected)


def test_a_class_without_test_images_has_no_shares(inputs):
    from dpmedbench.figures.confusion_matrix import matrix

    scores = inputs["mixed"]["scores"].copy()
    scores.loc[scores["class"] == 3, "value"] = 0
    shares = matrix(scores[scores["predictor"] == "model"], 5)
    assert np.isnan(shares[3]).all()
    np.testing.assert_allclose(np.delete(shares, 3, axis=0).sum(axis=1), 1)
