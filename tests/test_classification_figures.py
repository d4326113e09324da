"""The figures of classification, and those of both tasks on a classification."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import grid, write
from made_up_networks import write_network
from studies import OF_ROWS, lines, overlaps, texts, write_tables

from dpmedbench import figures, support

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
    if info.task != "segmentation" and not {"perturbed", "store"} & set(info.needs)
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """{study: what any figure of its classification needs}."""
    found = {}
    for name, (cells, epochs) in STUDIES.items():
        root = tmp_path_factory.mktemp(name)
        folders = write(root / "cells", cells, epochs, images=3)
        dataset = cells[-1].dataset
        found[name] = {
            kind: figures.load(path, dataset) for kind, path in write_tables(folders, root).items()
        }
        found[name] |= {
            "networks": [write_network(root / "resnet18.json", "resnet18")],
            "benchmark": [],
            "support": support.rows(),
            "left_out": {},
            "missing": {},
            "real": {dataset: dataset},
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


@pytest.mark.parametrize("name", sorted(EITHER & {*OF_ROWS}))
def test_a_dataset_without_rows_is_explained(name, inputs):
    empty = dict(inputs["mixed"])
    for kind in set(figures.TABLES) & set(empty):
        attributes = empty[kind].attrs | {"dataset": "chest_xray"}
        empty[kind] = empty[kind].iloc[:0]
        empty[kind].attrs = attributes
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


def test_the_accuracy_table_has_ours_with_intervals_and_the_published_numbers(inputs):
    from dpmedbench import published

    summary, real = inputs["mixed"]["summary"], {"aptos": "aptos"}
    figure = figures.draw("accuracy_table", summary=summary, real=real)
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    metrics = ("train_accuracy_best", "test_accuracy_best", "test_accuracy_last")
    rows = summary[summary["metric"].isin(metrics) & (summary["mechanism"] != "constant")]
    assert len(rows) == 2 * 7 * 3
    assert shown.count("Constant") == 1
    assert shown.count("60.0") == 2 * 2  # of each network, in both rows of the test set
    for row in rows.itertuples():
        assert f"{100 * row.value:.1f}" in shown
        assert f"{100 * row.low:.1f}–{100 * row.high:.1f}" in shown
    table = published.table("local_dp")
    aptos = table[(table["dataset"] == "aptos") & table["privacy"].isin(["none", "sigma2"])]
    for value in aptos["value"]:
        assert f"{100 * value:.2f}" in shown
    assert "in italics: as published" in figure.get_suptitle()
    assert "95 % intervals over runs, not patients" in " ".join(figure.get_suptitle().split())
    said = figures.numbers("accuracy_table", summary=summary, real=real)
    assert said.startswith("28 numbers have a published one")


@pytest.mark.parametrize(
    ("name", "real", "printed"),
    [
        ("aptos", {}, False),  # generated
        ("aptos", {"aptos": "custom"}, False),
        ("eyes", {"eyes": "aptos"}, True),
    ],
)
def test_published_numbers_stand_beside_the_published_data_whatever_they_are_called(
    name, real, printed, inputs
):
    summary = inputs["mixed"]["summary"].assign(dataset=name)
    summary.attrs = inputs["mixed"]["summary"].attrs
    figure = figures.draw("accuracy_table", summary=summary, real=real)
    assert ("published" in figure.get_suptitle()) == printed
    said = figures.numbers("accuracy_table", summary=summary, real=real)
    assert said.startswith("28 numbers") == printed
    assert bool(said) == printed


def test_examples_show_each_class_once_a_column(tmp_path):
    from dpmedbench import datasets, store, store_writer

    loader = datasets.load("aptos")
    loader.write_phantom(tmp_path / "raw", 30, 1, (48, 48), 0)
    options = loader.SPEC.choose(dict.fromkeys(loader.SPEC.options))
    records = loader.read(tmp_path / "raw", options)
    store_writer.write(tmp_path / "aptos.h5", records, loader.SPEC, (48, 48), {"loader": "aptos"})
    figure = figures.draw("example_images", store=tmp_path / "aptos.h5")
    assert overlaps(figure) == []
    assert [text.get_text().split("\n")[0] for text in figure.texts] == list(loader.SPEC.classes)
    assert len(figure.axes) == 2 * len(loader.SPEC.classes)
    with store.open_store(tmp_path / "aptos.h5") as data:
        labels = np.asarray(data.targets)
        said = figures.numbers("example_images", store=tmp_path / "aptos.h5")
        assert f"{loader.SPEC.classes[0]} {(labels == 0).sum()}" in said
        for number, axes in enumerate(figure.axes):
            of_class = data.read(np.flatnonzero(labels == number // 2))[0]
            drawn = axes.images[0].get_array()
            assert any(np.array_equal(drawn, image) for image in of_class)
