"""The workflow with a classification, alone and beside a segmentation."""

import json

import pandas as pd
import pytest
from checkout import CHEST, TINY, after_a_run

from dpmedbench import figures

pytestmark = pytest.mark.workflow

FIGURES = {
    "validation_loss": ("phantom_duke", "phantom_chest"),
    "validation_accuracy": ("phantom_duke",),
    "accuracy_over_epochs": ("phantom_chest",),
    "confusion_matrix": ("phantom_chest",),
}
MIXED = TINY | {
    "datasets": TINY["datasets"] | CHEST["datasets"],
    "models": TINY["models"] | CHEST["models"],
    "grids": [TINY["grids"][0] | {"mechanisms": ["non_private"]}, *CHEST["grids"]],
    "figures": list(FIGURES),
}
OF_EVERY_CELL = {"model.safetensors", "history.parquet", "privacy.json", "cost.json",
                 "manifest.json", "scores.parquet"}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The mixed study after one whole run."""
    return after_a_run(tmp_path_factory.mktemp("checkout"), MIXED)


def test_each_task_leaves_its_files(checkout):
    cells = checkout.folder / "results" / "tiny" / "cells"
    for dataset, number, own in (
        ("phantom_duke", 1, {"masks.h5", "scans.png"}),
        ("phantom_chest", 2, {"predictions.parquet"}),
    ):
        folders = [path.parent for path in (cells / dataset).rglob("scores.parquet")]
        assert len(folders) == number
        for folder in folders:
            assert {path.name for path in folder.iterdir()} == OF_EVERY_CELL | own


def test_each_dataset_has_the_figures_of_its_task(checkout):
    results = checkout.folder / "results" / "tiny"
    for dataset in ("phantom_duke", "phantom_chest"):
        found = {path.stem for path in (results / "figures" / dataset).glob("*.svg")}
        assert found == {name for name, names in FIGURES.items() if dataset in names}
    report = (results / "report.html").read_text()
    assert all(figures.catalog()[name].title in report for name in FIGURES)


def test_the_tables_hold_both_tasks(checkout):
    tables = checkout.folder / "results" / "tiny" / "tables"
    history = pd.read_parquet(tables / "history.parquet").set_index("dataset")
    assert history.loc["phantom_chest", "test_accuracy"].between(0, 1).all()
    assert history.loc["phantom_chest", "val_dice"].isna().all()
    assert history.loc["phantom_duke", "test_accuracy"].isna().all()
    scores = pd.read_parquet(tables / "scores.parquet")
    last = scores[(scores["predictor"] == "last_epoch") & (scores["metric"] == "accuracy")]
    reported = scores[(scores["predictor"] == "model") & (scores["metric"] == "accuracy")]
    assert last["value"].tolist() == reported["value"].tolist()
    assert len(last) == 2


def test_the_weights_of_the_classes_are_on_record(checkout):
    cells = checkout.folder / "results" / "tiny" / "cells" / "phantom_chest"
    for path in cells.rglob("manifest.json"):
        assert json.loads(path.read_text())["settings"]["task"] == {"class_weights": [1.5, 0.75]}


def test_other_weights_train_again_and_prepare_nothing_again(checkout):
    chest = CHEST["datasets"]["phantom_chest"] | {"class_weights": None}
    checkout.write(MIXED | {"datasets": TINY["datasets"] | {"phantom_chest": chest}})
    planned = checkout.would_run()
    checkout.write(MIXED)
    assert planned["train"] == planned["classify"] == 2
    assert not {"preprocess", "split", "segment"} & set(planned)


def test_a_classification_alone_needs_no_masks(checkout):
    checkout.write(TINY | CHEST | {"study": "alone"})
    planned = checkout.would_run()
    checkout.write(MIXED)
    assert planned["train"] == planned["classify"] == 2
    assert not {"segment", "scans"} & set(planned)
