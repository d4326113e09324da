"""What leaves: only what is named, nothing of a patient; what stays is told."""

from __future__ import annotations

import json
import os
import zipfile

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dpmedbench import disclosure, pretrained, share, tables
from dpmedbench.errors import UserError

PATIENT = "Jane Roe-4711"
SETTINGS = {
    "model": {"network": "unet", "weights_file": f"/data/{PATIENT}/{pretrained.OFFICIAL.filename}"},
    "mechanism": {"engine": "opacus"},
    "privacy": {"secure_rng": True, "accountant": "prv", "sampling": "poisson"},
    "training": {"selection": "last"},
}
KEPT = {
    "ordinary": {"mechanism": {"engine": "none"}},
    "on_noise": {"mechanism": {"engine": "local"}},
    "chosen": {"training": {"selection": "best_validation"}},
    "seeded": {"privacy": SETTINGS["privacy"] | {"secure_rng": False}},
    "approximate": {"privacy": SETTINGS["privacy"] | {"accountant": "gdp"}},
    "warm": {"model": {"network": "resnet18", "weights_file": f"/data/{PATIENT}/weights.pth"}},
}
PRIVATE = "duke/unet/private/sigma1/fold0/seed0"


@pytest.fixture
def study(tmp_path):
    """Cells of every kind, a patient named in all that may name one: folders and tables."""
    root = tmp_path / PATIENT
    cells = made_up.grid(mechanisms=("private", *KEPT), folds=2)
    folders = {str(cell.folder): path for cell, path in zip(
        cells, made_up.write(root, cells, size=(16, 16)), strict=True
    )}  # fmt: skip
    for cell in cells:
        folder = folders[str(cell.folder)]
        manifest = {
            "settings": SETTINGS | KEPT.get(cell.mechanism, {}),
            "data": {"digest": "d1ge57", "train": 88, "val": 10, "perturbation": PATIENT},
            **dict.fromkeys(share.ORIGIN[1:], "told"),
            "host": PATIENT,
            "device": PATIENT,
            "later": PATIENT,
        }
        save_file({"weight": np.full(3, cell.fold, np.float32)}, folder / "model.safetensors")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "scans.png").write_text(PATIENT)
        promise = json.loads((folder / "privacy.json").read_text())
        promise |= {"later": PATIENT, "noise_ratio_realised": 1.01}
        if cell.mechanism in ("ordinary", "on_noise"):
            promise |= {"epsilon": None}
        (folder / "privacy.json").write_text(json.dumps(promise))
        scores = pq.read_table(folder / "scores.parquet")
        for name in ("source", "patient"):
            column = [f"{PATIENT} {value}" for value in scores[name].to_pylist()]
            scores = scores.set_column(scores.column_names.index(name), name, pa.array(column))
        pq.write_table(scores, folder / "scores.parquet")
    tables.collect("scores", folders.values(), tmp_path / "scores.parquet")
    summary().to_parquet(tmp_path / "summary.parquet")
    return folders, tmp_path / "summary.parquet", tmp_path / "scores.parquet"


def summary():
    """A row a mechanism and metric; "told" marks what may leave."""
    metrics = [
        ("dice", 12, "told"),
        ("dice", 4, "few"),
        ("dice_3", 12, "few"),
        ("noisy_accuracy", None, "few"),
        ("step_seconds", None, "told"),
        ("images_per_second", None, "never"),  # with the time, how many were drawn
        *((name, 12, "never") for name in ("train_loss", "val_dice", "test_accuracy_best")),
    ]
    same = {"dataset": "duke", "model": "unet", "value": 0.5, "low": 0.4, "high": 0.6, "runs": 2}
    return pd.DataFrame(
        [
            same
            | {"mechanism": mechanism, "privacy": "sigma1", "metric": metric, "patients": patients}
            | {"images": 99, "level": level, "note": PATIENT}
            for mechanism in ("private", *KEPT)
            for metric, patients, level in metrics
        ]
    )


def packed(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_only_what_is_named_leaves_and_no_patient_is_in_it(study, tmp_path):
    folders, table, _ = study
    share.pack(tmp_path / "share.zip", folders, table, None)
    found = packed(tmp_path / "share.zip")
    assert set(found) == {"README.md", "tables/summary.csv"} | {
        f"models/duke/unet/private/sigma1/fold{fold}/seed0/{name}"
        for fold in (0, 1)
        for name in ("model.safetensors", "privacy.json", "manifest.json")
    }
    for name, content in found.items():
        for secret in (PATIENT, "Subject_", "d1ge57", str(tmp_path), "weights.pth", "resnet18-"):
            assert secret not in name
            assert secret.encode() not in content, name
    promise = json.loads(found[f"models/{PRIVATE}/privacy.json"])
    assert promise["epsilon"] > 0
    assert set(promise) == set(share.PROMISE)
    assert set(json.loads(found[f"models/{PRIVATE}/manifest.json"])) == set(share.ORIGIN)
    (tmp_path / "model").write_bytes(found[f"models/{PRIVATE}/model.safetensors"])
    with safe_open(tmp_path / "model", "np") as model:
        assert model.metadata() is None
        assert model.get_tensor("weight").tolist() == [0, 0, 0]


def test_the_scores_say_what_covers_whom(study, tmp_path):
    folders, table, _ = study
    share.pack(tmp_path / "share.zip", folders, table, None)
    with zipfile.ZipFile(tmp_path / "share.zip") as file:
        rows = pd.read_csv(file.open("tables/summary.csv")).set_index(["mechanism", "metric"])
    assert set(rows["level"]) == {"told"}
    assert len(rows) == 2 * (1 + len(KEPT))
    epsilon = json.loads((folders[PRIVATE] / "privacy.json").read_text())["epsilon"]
    told = rows["training_patients"]
    assert told["private", "dice"] == f"epsilon {disclosure.at_least(2 * epsilon)} at delta 2e-05"
    assert told["ordinary", "dice"] == "not covered: it is not private"
    assert told["on_noise", "dice"].endswith("not on their labels")
    assert told["chosen", "dice"].endswith("validation patients")
    assert told["seeded", "dice"].endswith("whoever knows the seed can take it off")
    assert told["approximate", "dice"].endswith("may be below what was spent")
    assert told["warm", "dice"].endswith("weights_file, which may have seen the patients")
    assert set(rows.xs("dice", level=1)["test_patients"]) == {"not covered"}


def test_the_readme_counts_what_leaves_and_what_stays(study, tmp_path):
    folders, table, _ = study
    share.pack(tmp_path / "share.zip", folders, table, None)
    text = packed(tmp_path / "share.zip")["README.md"].decode()
    epsilon = json.loads((folders[PRIVATE] / "privacy.json").read_text())["epsilon"]
    once, twice = disclosure.at_least(epsilon), disclosure.at_least(2 * epsilon)
    assert f"- {PRIVATE}: epsilon {once} at delta 1e-05 (image, add_remove, prv)" in text
    assert f"- duke (2): at most epsilon {twice} at delta 2e-05" in text
    assert text.count("- weights of cells (2): ") == len(KEPT)
    assert f"classes or of fewer than 5 patients ({3 * (1 + len(KEPT))});" in text


def test_patients_leave_only_where_they_are_asked_for_and_by_number(study, tmp_path):
    folders, table, scores = study
    share.pack(tmp_path / "share.zip", folders, table, scores)
    found = packed(tmp_path / "share.zip")
    assert all(PATIENT.encode() not in content for content in found.values())
    assert b"by number" in found["README.md"]
    with zipfile.ZipFile(tmp_path / "share.zip") as file:
        patients = pd.read_csv(file.open("tables/patients.csv"))
        rows = pd.read_csv(file.open("tables/summary.csv"))
    assert set(rows["level"]) == {"told", "few"}
    assert set(patients["patient"]) == {1, 2, 3}
    assert not {"source", "record"} & set(patients)
    given = tables.read(scores)
    for column in share.SCORES:
        means = given.groupby(["mechanism", "fold", "predictor", "patient", "class"])[column].mean()
        assert sorted(means.dropna()) == pytest.approx(sorted(patients[column].dropna()))


def test_the_numbers_of_patients_follow_no_order_that_others_know(study):
    frame = tables.read(study[2])
    orders = {
        tuple(share._patients(frame, key).groupby("patient")["dice"].mean().round(6))
        for key in map(str, range(20))
    }
    assert len(orders) > 3


def test_the_same_study_gives_the_same_bytes(study, tmp_path):
    folders, table, scores = study
    share.pack(tmp_path / "one.zip", folders, table, scores)
    for folder in folders.values():
        os.utime(folder / "model.safetensors", (0, 0))
    share.pack(tmp_path / "two.zip", dict(reversed(folders.items())), table, scores)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_study_without_a_covered_model_shares_scores(study, tmp_path):
    folders, table, _ = study
    home = {name: path for name, path in folders.items() if "/private/" not in name}
    share.pack(tmp_path / "share.zip", home, table, None)
    found = packed(tmp_path / "share.zip")
    assert set(found) == {"README.md", "tables/summary.csv"}
    assert b"None; see what stayed at home." in found["README.md"]


def test_a_missing_cell_is_one_sentence_and_no_file(study, tmp_path):
    folders, table, _ = study
    (folders[PRIVATE] / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"found no finished cell .*; run the study first"):
        share.pack(tmp_path / "share.zip", folders, table, None)
    assert not (tmp_path / "share.zip").exists()


def test_the_readme_adds_up_datasets_that_may_be_of_the_same_patients():
    promise = {"unit": "image", "neighbouring": "add_remove", "accountant": "prv", "study": "s"}
    promise |= {"epsilon": 2.0, "delta": 1e-5}
    cells = {
        name: {"why": None, "privacy": promise | {"dataset": name}} for name in ("duke", "small")
    }
    text = share._readme(cells, 0, False)
    assert "same patients: at most epsilon 4 at delta 2e-05" in text


def test_a_shuffled_epoch_has_no_approximation():
    private = SETTINGS["privacy"] | {"accountant": "gdp", "sampling": "shuffled"}
    assert disclosure.uncovered(SETTINGS | {"privacy": private}, 3.0) is None


def test_the_manifest_says_of_every_file_what_covers_it():
    assert disclosure.note(SETTINGS, 3.0)["model.safetensors"].startswith("covered by epsilon 3")
    for epsilon, told in ((3.0, "3"), (7.99612, "7.997"), (12.341, "12.35"), (0.10001, "0.1001")):
        assert disclosure.at_least(epsilon) == told  # never less than was spent
    for name, change in KEPT.items():
        note = disclosure.note(SETTINGS | change, None if name == "ordinary" else 3.0)
        assert note["model.safetensors"].startswith("not covered: ")
    named = " ".join(disclosure.note(SETTINGS, 3.0))
    for name in ("history", "scores", "masks", "predictions", "privacy", "cost", "manifest"):
        assert name in named
