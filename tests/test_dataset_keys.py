"""The keys of a dataset: whose they are, what they stand for, how many records to expect."""

from __future__ import annotations

import pytest

from dpmedbench import cells, config, datasets, splits
from dpmedbench.config import Dataset, Split
from dpmedbench.errors import UserError


def study(**dataset):
    return {
        "study": "s",
        "datasets": {"d": {"loader": "duke", **dataset}},
        "models": {"unet": {}},
        "mechanisms": {"plain": {"engine": "none"}},
        "grids": [{"datasets": ["d"], "models": ["unet"], "mechanisms": ["plain"]}],
    }


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"grader": "union"}, r"datasets.d: grader is 'union', allowed for loader duke are \(1, 2"),
        ({"grader": 3}, r"datasets.d.grader.*: found 3, input should be 1, 2, 'union' or 'inters"),
        ({"channels": 3}, r"channels is 3, but loader duke takes grader; leave it out"),
        ({"loader": "custom", "grader": 1}, r"grader is 1, but loader custom takes task, manifest"),
        ({"loader": "umn", "unreadable": "stop"}, r"unreadable is 'stop', but loader umn takes gr"),
        ({"loader": "custom", "source": "download"}, "custom has no official download; use sourc"),
        ({"split": {"method": "official"}}, "split.method is official, but duke has no official"),
        ({"split": {"method": "ratio", "folds": 2}}, "folds 2 needs method kfold"),
        ({"optional": True}, "optional goes with source path, found source phantom"),
        ({"loader": "custom", "white": 0}, r"datasets.d.white: found 0, input should be greater"),
    ],
)
def test_keys_of_other_loaders_and_wrong_values_are_refused(keys, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        config.load(study(**keys))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        ("custom", r"\(resnet18\); set datasets.d.task, or name a model for segmentation"),
        ("duke", r"none of its models is \(resnet18\); name a model for segmentation"),
    ],
)
def test_a_dataset_without_a_network_for_its_task_is_refused(loader, sentence):
    other = {"datasets": ["other"], "models": ["unet"], "mechanisms": ["plain"]}
    values = study(loader=loader)
    values["datasets"]["other"] = {"loader": "umn"}
    values["models"] = {"unet": {}, "resnet18": {}}
    values["grids"] = [values["grids"][0] | {"models": ["resnet18"]}, other]
    with pytest.raises(UserError, match=rf"dataset d is for segmentation, but .*{sentence}"):
        config.load(values)
    values["grids"].append(other | {"datasets": ["d"]})
    (folders,) = cells.left_out(config.load(values)).values()
    assert folders == ["d/resnet18/plain/none/fold0/seed0"]


def test_what_is_left_out_is_the_first_that_the_loader_allows():
    assert Dataset(loader="duke").options == {"grader": 1}
    assert Dataset(loader="umn", grader="union").options == {"grader": "union"}
    own = Dataset(loader="custom", task="classification", channels=3)
    assert own.spec.task == "classification"
    assert own.options == {
        "task": "classification",
        "manifest": None,
        "classes": None,
        "mask_values": None,
        "channels": 3,
        "white": None,
        "unreadable": "stop",
    }


def test_cells_of_an_optional_dataset_are_left_out_where_its_files_are_not_there(tmp_path):
    there = tmp_path / "raw"
    values = study(source="path", path=str(there), optional=True)
    values["datasets"]["other"] = {"loader": "duke"}
    values["grids"][0]["datasets"] = ["d", "other"]
    made = config.load(values)
    ((reason, folders),) = cells.left_out(made).items()
    assert reason.startswith(f"dataset d: there is nothing at {there}")
    assert folders == ["d/unet/plain/none/fold0/seed0"]
    rest = [cell for cell in cells.every(made) if cell.folder not in folders]
    assert [cell.dataset for cell in rest] == ["other"]
    assert cells.left_out(made, among=rest) == {}  # of those that have results
    there.mkdir()
    assert cells.left_out(made) == {}


@pytest.mark.parametrize("name", datasets.names())
def test_every_option_is_a_key(name):
    assert set(datasets.load(name).SPEC.options) <= set(Dataset.model_fields)
    assert Dataset(loader=name).options.keys() == datasets.load(name).SPEC.options.keys()


def trained(patients: int, official: list[str], **split) -> int:
    """Training records of a real split of two records a patient."""
    names = [f"p{k}" for k in range(patients) for _ in "12"]
    given = [home for home in official for _ in "12"]
    frame = splits.make(names, names, given, **Split(**split).model_dump())
    return len(splits.indices(frame, 0, "train"))


@pytest.mark.parametrize("patients", [4, 5, 10, 29, 41])
@pytest.mark.parametrize(
    "split",
    [
        {"method": "ratio", "ratios": (0.6, 0.2, 0.2)},
        {"method": "ratio", "ratios": (0.34, 0.33, 0.33)},
        {"method": "official", "ratios": (0.7, 0.2, 0.1)},
        {"method": "official", "folds": 2},
    ],
)
def test_the_records_to_be_expected_are_those_that_come(patients, split):
    phantom = {"patients": patients, "scans": 2}
    dataset = Dataset(loader="custom", phantom=phantom, split=split)
    test = max(1, patients // 4)
    official = ["train"] * (patients - test) + ["test"] * test
    found = trained(patients, official, **split)
    difference = dataset.nominal_training_records - found
    # folds that do not come out even differ by a patient
    assert difference in ((0, 2) if "folds" in split else (0,))


def test_the_official_numbers_are_expected_of_a_download():
    chest = {"loader": "chest_xray", "source": "download"}
    spec = datasets.load("chest_xray").SPEC
    rest = spec.nominal_patients - spec.nominal_test_patients
    found = Dataset(**chest, split={"method": "official"}).nominal_training_records
    assert found == pytest.approx(rest * 8 / 9 * spec.nominal_records_per_patient, rel=1e-3)
    umn = Dataset(loader="umn", source="download", split={"ratios": (0.8, 0.1, 0.1)})
    assert umn.nominal_training_records == 23 * 25
    assert Dataset(loader="umn", source="path", path="x").nominal_training_records is None
