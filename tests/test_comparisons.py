"""Pairs of mechanisms, compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpmedbench import comparisons, evaluation, results, statistics

WAYS = [("plain", "none"), ("one", "sigma1"), ("other", "sigma1"), ("one", "sigma2")]


def made(patients=20, runs=3, better=0.1, ways=WAYS, seed=0, dataset="duke"):
    """Results of a segmentation: each way is better than the one before it by `better`."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 0.05, patients)
    rows, cells = [], []
    for rank, (mechanism, privacy) in enumerate(ways):
        for run in range(runs):
            cell = dict(
                zip(results.CELL, (dataset, "unet", mechanism, privacy, 0, run), strict=True)
            )
            seconds = 1 + rank + rng.normal(0, 0.01)
            cells.append(cell | {"step_seconds": seconds, "device": "made-up device"})
            level = 0.5 + better * rank + ease + rng.normal(0, 0.01, patients)
            for patient in range(patients):
                for c in range(2):
                    rows.append(
                        cell
                        | {"predictor": "model", "patient": f"p{patient}", "class": c}
                        | {"images": 4, "present": 4}
                        | dict.fromkeys(evaluation.DISTANCES.values(), 0)
                        | dict.fromkeys(evaluation.SEGMENTED, level[patient])
                    )
    empty = pd.DataFrame(columns=[*results.CELL, "predictor"])
    return results.Results(pd.DataFrame(cells), pd.DataFrame(rows), empty)


def of(frame, second, first="plain", metric="dice"):
    """The one row of a pair, second a mechanism and privacy."""
    found = frame[
        (frame["first"] == first)
        & (frame["second"] == second[0])
        & (frame["privacy"] == second[1])
        & (frame["metric"] == metric)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_private_ones_at_one_noise_and_each_with_the_ordinary():
    frame = comparisons.table(made())
    assert list(frame.columns) == comparisons.COLUMNS
    found = frame.loc[frame["metric"] == "dice", ["first", "second", "privacy"]]
    assert sorted(found.itertuples(index=False, name=None)) == [
        ("one", "other", "sigma1"),
        ("plain", "one", "sigma1"),
        ("plain", "one", "sigma2"),
        ("plain", "other", "sigma1"),
    ]
    assert (frame["metric"] == "step_seconds").sum() == 4


def test_a_clear_difference_has_its_sign_and_size():
    for better, verdict in ((0.1, "higher"), (-0.1, "lower")):
        row = of(comparisons.table(made(better=better)), ("one", "sigma1"))
        assert row["difference"] == pytest.approx(better, abs=0.01)
        assert row["low"] < row["difference"] < row["high"]
        assert row["verdict"] == verdict
        assert (row["pairs"], row["runs"], row["note"]) == (20, 3, "")
        assert row["p"] < row["p_holm"] < 0.05


def test_no_difference_cannot_be_separated():
    row = of(comparisons.table(made(better=0.0)), ("one", "sigma1"))
    assert row["verdict"] == "cannot be separated"
    assert row["low"] < 0 < row["high"]


def test_pairs_swapped_are_the_same_pairs():
    ways = [("one", "sigma1"), ("other", "sigma1")]
    found = made(better=0.02, ways=ways)
    swapped = results.Results(found.cells.iloc[::-1], found.segmented, found.predicted)
    one = of(comparisons.table(found), ("other", "sigma1"), "one")
    other = of(comparisons.table(swapped), ("one", "sigma1"), "other")
    for key, mirror in (("difference", "difference"), ("low", "high"), ("high", "low")):
        assert other[key] == pytest.approx(-one[mirror], abs=1e-9)
    assert other["p"] == pytest.approx(one["p"], abs=1e-3)


def test_single_runs_say_nothing_of_the_next():
    frame = comparisons.table(made(runs=1, better=0.3))
    assert (frame["verdict"] == "single runs").all()
    assert frame[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert of(frame, ("one", "sigma1"))["difference"] == pytest.approx(0.3, abs=0.01)


def test_few_patients_separate_nothing_and_say_so():
    row = of(comparisons.table(made(patients=4, better=0.3)), ("one", "sigma1"))
    assert row["low"] > 0
    assert row["p"] == pytest.approx(2 / 2**4)
    assert row["verdict"] == "cannot be separated"
    assert row["note"] == comparisons.FEW


def test_one_patient_in_several_runs_is_no_single_run():
    row = of(comparisons.table(made(patients=1, better=0.3)), ("one", "sigma1"))
    assert (row["pairs"], row["runs"]) == (1, 3)
    assert np.isnan(row["p"])
    assert row["verdict"] == "cannot be separated"
    assert row["note"] == comparisons.FEW


def test_a_bound_of_random_flips_is_said_too(monkeypatch):
    """All flips that are looked at are less: no p of three comparisons is below 0.05."""
    monkeypatch.setattr(statistics, "FLIPS", 50)
    row = of(comparisons.table(made(better=0.3)), ("one", "sigma1"))
    assert row["p"] == pytest.approx(1 / 51)
    assert row["p_holm"] == pytest.approx(3 / 51)
    assert (row["verdict"], row["note"]) == ("cannot be separated", comparisons.FEW)


def together(*parts):
    """Results of several datasets as of one study."""
    frames = zip(*((r.cells, r.segmented, r.predicted) for r in parts), strict=True)
    return results.Results(*(pd.concat(frame, ignore_index=True) for frame in frames))


def test_no_verdict_stands_beside_the_note_that_there_can_be_none():
    """Holm multiplies the p of few pairs with the comparisons that have no smaller one, and a
    comparison without p is none."""
    one_patient = made(1, better=0.3, ways=WAYS[:2], dataset="lonely")
    few = together(made(6, better=0.3, ways=WAYS[:2]), one_patient)
    beside = together(made(7, better=0.3, ways=WAYS[:2], dataset="few"), made(20))
    for found, dataset, p in ((few, "duke", 2**-5), (beside, "few", 2**-6)):
        frame = comparisons.table(found)
        row = of(frame[frame["dataset"] == dataset], ("one", "sigma1"))
        assert row["p_holm"] == pytest.approx(p)
        assert (row["verdict"], row["note"]) == ("higher", "")
        assert (frame.loc[frame["note"] != "", "verdict"] == "cannot be separated").all()


def test_a_fold_counts_once_however_many_patients_it_tests(monkeypatch):
    """The difference, its interval and its test are of the means that the summary shows."""
    found = made(patients=10, runs=3, ways=WAYS[:2])
    number = found.segmented["patient"].str[1:].astype(int)
    fold = np.select([number < 5, number < 7], [0, 1], 2)
    tested = found.segmented[found.segmented["seed"] == fold].copy()
    effect = np.array([-0.1, -0.4, -0.4])[tested["seed"]]
    for metric in evaluation.SEGMENTED:
        tested[metric] = 0.5 + np.where(tested["mechanism"] == "one", effect, 0)
    found = results.Results(found.cells, tested, found.predicted)
    monkeypatch.setattr(statistics, "mean_test", lambda *_: 0.0)
    row = of(comparisons.table(found), ("one", "sigma1"))
    first, second = (
        found.tests(cells).scores(np.ones((1, 10)))["dice"].mean() for _, cells in found.settings()
    )
    assert row["difference"] == pytest.approx(second - first, abs=1e-12)
    assert row["difference"] == pytest.approx(-0.3, abs=1e-12)
    assert row["low"] < -0.3 < row["high"]
    of_patient = np.repeat([-0.1 / 5, -0.4 / 2, -0.4 / 3], [5, 2, 3])
    assert row["p"] == statistics.paired_test(of_patient)


def test_times_are_compared_on_one_device():
    found = made()
    for seed, device in ((1, "another"), (2, "a third")):
        elsewhere = (found.cells["mechanism"] == "one") & (found.cells["seed"] == seed)
        found.cells.loc[elsewhere, ["device", "step_seconds"]] = device, 99.0
    frame = comparisons.table(found)
    row = of(frame, ("one", "sigma1"), metric="step_seconds")
    assert (row["runs"], row["verdict"]) == (1, "single runs")
    assert row["difference"] == pytest.approx(1, abs=0.1)
    assert of(frame, ("one", "sigma1"))["runs"] == 3
    found.cells["device"] = found.cells["mechanism"]
    assert "step_seconds" not in set(comparisons.table(found).query("first == 'plain'")["metric"])


def test_holm_counts_the_comparisons_of_one_dataset_network_and_noise():
    frame = comparisons.table(together(made(better=0.3), made(dataset="umn")))
    dice = frame[(frame["metric"] == "dice") & (frame["dataset"] == "duke")]
    assert dice.groupby("privacy").size().to_dict() == {"sigma1": 3, "sigma2": 1}
    least = statistics.smallest(20)
    assert dice["p"].to_numpy() == pytest.approx(least)
    expected = dice["privacy"].map({"sigma1": 3 * least, "sigma2": least})
    assert dice["p_holm"].to_numpy() == pytest.approx(expected.to_numpy())


def test_training_luck_is_not_taken_for_a_difference():
    """Many patients, two runs that disagree: a test over patients alone would be sure."""
    found = made(patients=300, runs=2, better=0.0, ways=WAYS[:2])
    luck = (found.segmented["mechanism"] == "one") & (found.segmented["seed"] == 0)
    found.segmented.loc[luck, list(evaluation.SEGMENTED)] += 0.1
    row = of(comparisons.table(found), ("one", "sigma1"))
    assert row["low"] < 0.005
    assert row["p"] > 0.05
    assert row["verdict"] == "cannot be separated"


def test_what_the_runs_say_is_corrected_for_the_number_of_comparisons_too():
    """Three runs that differ: p = 0.03 of the interval is not small among three comparisons."""
    found = made(better=0.0)
    lucky = (found.segmented["mechanism"] == "one") & (found.segmented["privacy"] == "sigma1")
    luck = found.segmented["seed"].map({0: 0.026, 1: 0.04, 2: 0.054}).where(lucky, 0)
    for metric in evaluation.SEGMENTED:
        found.segmented[metric] += luck
    row = of(comparisons.table(found), ("one", "sigma1"))
    assert row["low"] > 0
    assert row["p"] < 0.05 < row["p_holm"]
    assert row["verdict"] == "cannot be separated"


def test_only_runs_and_patients_that_both_have_count():
    found = made(better=0.1)
    cells = found.cells.drop(found.cells.query("mechanism == 'one' and seed == 2").index)
    fewer = results.Results(cells, found.segmented, found.predicted)
    assert of(comparisons.table(fewer), ("one", "sigma1"))["runs"] == 2
    assert of(comparisons.table(fewer), ("other", "sigma1"))["runs"] == 3


def test_patients_that_only_one_of_the_two_has_a_score_for_are_counted():
    found = made(better=0.1)
    lost = (found.segmented["mechanism"] == "one") & found.segmented["patient"].isin(("p1", "p4"))
    lost &= (found.segmented["privacy"] == "sigma1") & (found.segmented["class"] == 1)
    lost &= (found.segmented["seed"] > 0) | (found.segmented["patient"] == "p1")
    found.segmented.loc[lost, list(evaluation.SEGMENTED)] = np.nan
    frame = comparisons.table(found)
    row = of(frame, ("one", "sigma1"))
    assert (row["pairs"], row["note"]) == (19, comparisons.ONE_SIDED.format(2))
    assert of(frame, ("one", "sigma1"), metric="step_seconds")["note"] == comparisons.FEW
    assert of(frame, ("one", "sigma2"))["note"] == ""
    few = made(patients=4, better=0.3)
    lost = (few.segmented["mechanism"] == "one") & (few.segmented["patient"] == "p1")
    few.segmented.loc[lost, list(evaluation.SEGMENTED)] = np.nan
    note = of(comparisons.table(few), ("one", "sigma1"))["note"]
    assert note == f"{comparisons.ONE_SIDED.format(1)}; {comparisons.FEW}"
    runs = few.cells.query("mechanism == 'one' and seed == 2").index
    elsewhere = results.Results(few.cells.drop(runs), few.segmented, few.predicted)
    assert of(comparisons.table(elsewhere), ("other", "sigma1"))["note"] == comparisons.FEW


def test_nothing_to_compare():
    frame = comparisons.table(made(ways=WAYS[:1]))
    assert list(frame.columns) == comparisons.COLUMNS
    assert frame.empty
