"""Splits: whole patients, every split filled, and a file that a person may edit."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmedbench import splits
from dpmedbench.errors import UserError

RECORDS = 24
STORE = SimpleNamespace(
    num_records=RECORDS,
    patients=np.array([f"p{k % 6}" for k in range(RECORDS)]),
    sources=np.array([f"p{k % 6}/scan, {k}" for k in range(RECORDS)]),
)


def fresh(**options):
    options = {"method": "ratio", "seed": 3, **options}
    return splits.make(STORE.patients, STORE.sources, **options)


def patients(frame, fold=0) -> dict[str, set[str]]:
    here = frame[frame["fold"] == fold]
    return {s: set(here.loc[here["split"] == s, "patient"]) for s in splits.SPLITS}


@settings(max_examples=60, deadline=None)
@given(
    owner=st.lists(st.integers(0, 14), min_size=3, max_size=60).filter(lambda x: len(set(x)) > 2),
    weights=st.tuples(*[st.integers(1, 20)] * 3),
    seed=st.integers(0, 2**31),
)
def test_a_split_by_ratio_is_disjoint_full_and_covers(owner, weights, seed):
    names = [f"p{k}" for k in owner]
    sources = [f"s{k}" for k in range(len(owner))]
    ratios = [w / sum(weights) for w in weights]
    frame = splits.make(names, sources, method="ratio", ratios=ratios, seed=seed)
    assert sorted(frame["record"]) == list(range(len(owner)))
    assert frame["patient"].tolist() == [names[k] for k in frame["record"]]
    assert frame["source"].tolist() == [sources[k] for k in frame["record"]]
    groups = patients(frame)
    assert sum(map(len, groups.values())) == len(set(names))
    for split, ratio in zip(splits.SPLITS, ratios, strict=True):
        assert groups[split]
        share = ratio * len(set(names))
        assert len(groups[split]) == 1 or abs(len(groups[split]) - share) < 3
    assert frame.equals(splits.make(names, sources, method="ratio", ratios=ratios, seed=seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 1000))
def test_every_patient_is_tested_once_over_the_folds(count, folds, seed):
    names = [f"p{k % count}" for k in range(3 * count)]
    if folds > count:
        with pytest.raises(UserError, match=f"expected 3 to {count}"):
            splits.make(names, names, method="kfold", folds=folds, seed=seed)
        return
    frame = splits.make(names, names, method="kfold", folds=folds, seed=seed)
    tested = []
    for fold in range(folds):
        groups = patients(frame, fold)
        assert all(groups.values())
        assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == count
        assert groups["val"] == patients(frame, (fold + 1) % folds)["test"]
        tested += groups["test"]
    assert sorted(tested) == sorted(set(names))


@pytest.mark.parametrize(
    ("count", "ratios", "sizes"),
    [
        (10, (0.8, 0.1, 0.1), [8, 1, 1]),
        (10, (0.6, 0.2, 0.2), [6, 2, 2]),
        (3, (0.8, 0.1, 0.1), [1, 1, 1]),
        (6, (0.8, 0.1, 0.1), [4, 1, 1]),
        (11, (0.5, 0.25, 0.25), [5, 3, 3]),
    ],
)
def test_largest_remainder(count, ratios, sizes):
    names = [f"p{k}" for k in range(count)]
    groups = patients(splits.make(names, names, method="ratio", ratios=ratios))
    assert [len(groups[s]) for s in splits.SPLITS] == sizes


def test_explicit_lists(capsys):
    frame = fresh(method="lists", lists={"train": ["p4", "p1"], "val": ["p0"], "test": ["p2"]})
    assert patients(frame) == {"train": {"p1", "p4"}, "val": {"p0"}, "test": {"p2"}}
    assert len(frame) == 16
    assert "2 of 6 patients are in no split list" in capsys.readouterr().err


def official(homes: str, **options):
    """Two records a patient; T, V, r stand for test, val and train or nothing."""
    names = [f"p{k:02}" for k in range(len(homes)) for _ in "12"]
    words = {"T": ("test", "test"), "V": ("val", "val"), "r": ("train", "")}
    given = [word for home in homes for word in words[home]]
    return splits.make(names, names, given, method="official", **options)


@settings(max_examples=60, deadline=None)
@given(
    homes=st.text("Tr", min_size=4, max_size=30).filter(lambda x: "T" in x and x.count("r") > 3),
    folds=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_the_official_test_set_is_tested_in_every_fold(homes, folds, seed):
    frame = official(homes, folds=folds, seed=seed, ratios=(0.6, 0.2, 0.2))
    test = {f"p{k:02}" for k, home in enumerate(homes) if home == "T"}
    validated = []
    for fold in range(folds):
        groups = patients(frame, fold)
        assert groups["test"] == test
        assert groups["train"]
        assert groups["val"]
        assert groups["train"] | groups["val"] == {f"p{k:02}" for k in range(len(homes))} - test
        validated += groups["val"]
    if folds == 1:
        assert abs(len(validated) - homes.count("r") / 4) <= 1
    else:
        assert len(validated) == len(set(validated)) == homes.count("r")


def test_the_seed_of_an_official_split_matters():
    drawn = {str(patients(official("T" + 12 * "r", seed=seed))["val"]) for seed in range(8)}
    assert len(drawn) > 1


def test_an_official_validation_set_is_used_or_joins_the_folds():
    assert patients(official("TrVrT")) == {
        "test": {"p00", "p04"}, "val": {"p02"}, "train": {"p01", "p03"},
    }  # fmt: skip
    frame = official("TrVrT", folds=3)
    assert set.union(*(patients(frame, k)["val"] for k in range(3))) == {"p01", "p02", "p03"}


@pytest.mark.parametrize(
    ("homes", "options", "expected"),
    [
        ("rrrr", {}, "no official test set"),
        ("TTVV", {}, "no training set"),
        ("TTTr", {}, "found 1 patients outside the official test set, expected at least 2"),
        ("Trr", {"folds": 3}, "found 2 patients outside the official test set, expected at le"),
    ],
)
def test_impossible_official_splits_are_refused(homes, options, expected):
    with pytest.raises(UserError, match=expected):
        official(homes, **options)


def test_a_patient_in_two_official_splits_is_refused_by_name():
    with pytest.raises(UserError, match="found patient 'b' in test and in train of the official"):
        splits.make(list("abcb"), list("wxyz"), ["test", "test", "", ""], method="official")
    splits.make(list("abcb"), list("wxyz"), ["test", "test", "", ""], method="ratio")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ratios": (0.8, 0.1)}, "three numbers"),
        ({"ratios": (0.9, 0.1, 0.1)}, "sum to 1"),
        ({"ratios": (0.9, 0.1, 0.0)}, "above 0"),
        ({"folds": 2}, "expected 1 with method ratio"),
        ({"method": "kfold", "folds": 2}, "expected 3 to 6"),
        ({"method": "magic"}, "'magic', expected ratio"),
        ({"method": "lists"}, "lists.train: found no patient"),
        ({"method": "lists", "lists": {"train": ["p0"], "val": ["p1"], "test": ["p9"]}}, "'p9'"),
        ({"method": "lists", "lists": {"train": ["p0"], "val": ["p1"], "test": ["p0"]}},
         "'p0' in train and in test"),
    ],
)  # fmt: skip
def test_impossible_splits_are_refused(options, expected):
    with pytest.raises(UserError, match=expected):
        fresh(**options)


def test_too_few_patients_are_refused():
    with pytest.raises(UserError, match="found 2 patients"):
        splits.make(["a", "b"], ["x", "y"], method="ratio")


def test_file_round_trip(tmp_path):
    path = tmp_path / "toy.splits.csv"
    frame = fresh(method="kfold", folds=3)
    assert splits.write(frame, path, STORE)
    back = splits.read(path, STORE)
    assert back.to_dict("list") == frame.to_dict("list")
    assert back["fold"].dtype == back["record"].dtype == np.int64
    for fold in range(3):
        parts = [splits.indices(back[::-1], fold, s) for s in splits.SPLITS]  # sorted by hand
        assert all((np.diff(p) > 0).all() for p in parts)
        assert sorted(np.concatenate(parts)) == list(range(RECORDS))
    with pytest.raises(UserError, match="found no val in fold 3"):
        splits.indices(back, 3, "val")


def test_an_untouched_file_is_made_again_and_an_edited_one_kept(tmp_path, capsys):
    path = tmp_path / "toy.splits.csv"
    splits.write(fresh(seed=0), path, STORE)
    assert splits.write(fresh(seed=1), path, STORE)
    assert splits.read(path, STORE).equals(fresh(seed=1))

    edited = "\n".join(path.read_text().splitlines()[:-1]) + "\n"  # one record left out
    path.write_text(edited)
    os.utime(path, (1, 1))
    assert not splits.write(fresh(seed=0), path, STORE)
    assert path.read_text() == edited
    assert path.stat().st_mtime > 1e9
    assert "edited by hand, kept" in capsys.readouterr().err
    assert len(splits.read(path, STORE)) == RECORDS - 1


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: "\ufeff" + text,
    lambda text: text.split("\n", 1)[1],
    lambda text: text.replace("kept.\n", "kept.,,,,\n"),
])  # fmt: skip
def test_what_spreadsheets_do_to_a_file_is_read_and_kept(tmp_path, change):
    path = tmp_path / "toy.splits.csv"
    splits.write(fresh(), path, STORE)
    path.write_bytes(change(path.read_text()).encode())
    assert splits.read(path, STORE).equals(fresh())
    assert not splits.write(fresh(seed=9), path, STORE)


def break_file(tmp_path, change):
    path = tmp_path / "toy.splits.csv"
    splits.write(fresh(), path, STORE)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(UserError) as caught:
        splits.read(path, STORE)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        splits.write(fresh(), path, STORE)
    return str(caught.value)


def with_line(number, edit):
    def change(lines):
        lines[number - 1] = edit(lines[number - 1])
        return lines

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (with_line(5, lambda t: t.replace("train", "test")), "in test and in train of fold 0"),
        (with_line(5, lambda t: t.replace("train", "valid")), "line 5: found split 'valid'"),
        (with_line(5, lambda t: "x" + t), "line 5: found fold 'x0'"),
        (with_line(5, lambda t: "0,train,p0,99,a"), "line 5: found record 99, expected 0 to 23"),
        (with_line(5, lambda t: "0,train,p0,-1,a"), "line 5: found record '-1'"),
        (with_line(5, lambda t: "0,train"), "line 5: found 2 cells, expected 5"),
        (with_line(5, lambda t: t.replace("scan", "sc")), "line 5: found source"),
        (with_line(5, lambda t: t.replace(",p", ",q", 1)), "line 5: found patient 'q"),
        (with_line(2, lambda t: t.replace("split,", "part,")), "found no column split"),
        (with_line(2, lambda t: t.replace(",", ";")), "found no column fold and no split"),
        (lambda lines: [*lines, lines[-1]], "for the second time in fold 0"),
        (lambda lines: [t for t in lines if ",val," not in t], "nothing in val of fold 0"),
        (lambda lines: lines[:2], "found no rows"),
        (lambda lines: lines[:1], "found no column fold"),
        (with_line(3, lambda t: t + ",more"), "line 3: found 6 cells, expected 5"),
        (with_line(5, lambda t: t + ",more,and,more"), "line 5: found 8 cells, expected 5"),
        (with_line(5, lambda t: "\n,,,,\n" + t.replace("train", "x")), "line 7: found split 'x'"),
        (with_line(5, lambda t: t.replace("/", '"/')), "found no readable CSV"),
    ],
)
def test_a_wrong_edit_gets_one_sentence(tmp_path, change, expected):
    assert expected in break_file(tmp_path, change)


def test_a_file_for_other_data_is_refused(tmp_path):
    path = tmp_path / "toy.splits.csv"
    splits.write(fresh(), path, STORE)
    other = SimpleNamespace(**{**vars(STORE), "sources": STORE.sources[::-1]})
    with pytest.raises(UserError, match="found source"):
        splits.read(path, other)
    with pytest.raises(UserError, match="found no readable text"):
        splits.read(tmp_path / "none.csv", STORE)
