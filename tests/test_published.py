"""The published numbers."""

from __future__ import annotations

import pytest

from dpmedbench import published, results, summary
from dpmedbench.figures import wording

STUDIES = sorted(path.stem for path in published.FOLDER.glob("*.csv"))
COLUMNS = ["study", "source", "dataset", "model", "mechanism", "privacy", "metric", "value"]


@pytest.mark.parametrize("study", STUDIES)
def test_every_number_is_tidy_and_has_a_source(study):
    frame = published.table(study)
    assert list(frame.columns) == COLUMNS
    assert (frame["study"] == study).all()
    assert frame[COLUMNS[:-1]].map(len).gt(0).all(axis=None)
    assert not frame.duplicated(COLUMNS[:-1]).any()
    noisy = frame.loc[frame["privacy"] != "none", "privacy"]
    assert noisy.map(wording.noise_name).ne(noisy).all()  # as in our tables
    for metric, low, high in (("accuracy", 0, 1), ("epsilon", 1, 1000)):
        values = frame.loc[frame["metric"].str.contains(metric), "value"]
        assert values.between(low, high).all()


def test_metrics_are_those_of_our_summary():
    ours = {*results.LAST, *results.SCORED.values(), *results.MEASURED.values()}
    ours |= {"epsilon", *summary.ACCURACY.values()}
    for study in STUDIES:
        assert set(published.table(study)["metric"]) <= ours


def test_the_accuracy_table_is_whole():
    frame = published.table("local_dp")
    assert len(frame) == 28
    wide = frame.pivot_table("value", ["dataset", "metric"], ["mechanism", "privacy"])
    assert wide.shape == (4, 7)
    assert wide.loc[("chest_xray", "test_accuracy_best"), ("original", "none")] == 0.9022
    assert wide.loc[("aptos", "train_accuracy_best"), ("DP-SGD", "sigma4")] == 0.1782
    assert wide.loc[("chest_xray", "test_accuracy_best"), ("LDP", "beta4")] == 0.9167


def test_epsilons_as_printed():
    largest = published.table("bookkeeping").set_index(["dataset", "mechanism"])["value"]
    assert largest.to_dict() == {
        ("duke", "Opacus"): 500,
        ("duke", "Book-Keeping"): 500,
        ("umn", "Opacus"): 350,
    }
