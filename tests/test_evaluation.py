"""Test scores with weights of patients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dpmedbench import classification_metrics, evaluation


def answers(runs=2, patients=9, classes=3, seed=0, most=3):
    """Predictions of some images of each patient, with ties, in no order."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        labels = rng.integers(0, classes, rng.integers(1, most + 1))
        for image, label in enumerate(labels):
            for run in range(runs):
                raw = rng.integers(1, 6, classes) + 2.0 * (np.arange(classes) == label)
                probability = raw / raw.sum()
                rows.append(
                    {
                        "fold": 0,
                        "seed": run,
                        "patient": f"p{patient}",
                        "record": 10 * patient + image,
                        "label": label,
                        "predicted": probability.argmax(),
                    }
                    | {f"probability_{c}": probability[c] for c in range(classes)}
                )
    return pd.DataFrame(rows).sample(frac=1, random_state=seed, ignore_index=True)


def dice(patients=5, classes=3, runs=2, seed=0):
    """Means of patients as `results.read` makes them; the last class is not in all of them."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [[0], range(runs), [f"p{i}" for i in range(patients)], range(classes)],
        names=["fold", "seed", "patient", "class"],
    )
    frame = pd.DataFrame(
        rng.random((len(index), 4)), index, columns=list(evaluation.SEGMENTED)
    ).reset_index()
    absent = (frame["class"] == classes - 1) & frame["patient"].isin(("p1", "p3"))
    frame.loc[absent, list(evaluation.SEGMENTED)] = np.nan
    counts = frame["dice"].notna() * 11
    return frame.assign(images=11, present=counts, missed_hd95=counts // 5, missed_boundary_mae=0)


def equal(found):
    """The scores of patients that count equally: {metric: (R,)}."""
    return {k: v[0] for k, v in found.scores(np.ones((1, len(found.patients)))).items()}


def drawn(frame, counts):
    """The rows of patients drawn so often, each draw a patient of its own."""
    names = frame["patient"].unique()
    parts = [
        frame[frame["patient"] == name].assign(patient=f"{name}/{draw}")
        for name, count in zip(names, counts, strict=True)
        for draw in range(count)
    ]
    return pd.concat(parts)


@pytest.mark.parametrize("classes", [2, 4])
def test_one_image_a_patient_scores_as_ever(classes):
    frame = answers(patients=60, classes=classes, most=1)
    found = equal(evaluation.classification(frame))
    columns = [f"probability_{c}" for c in range(classes)]
    for run, part in frame.groupby("seed"):
        expected = classification_metrics.scores(part[columns].to_numpy(), part["label"].to_numpy())
        assert {k: v[run] for k, v in found.items()} == pytest.approx(
            {k: score.value for k, score in expected.items()}, abs=1e-6
        )


@pytest.mark.parametrize(
    ("task", "frame"),
    [(evaluation.classification, answers()), (evaluation.segmentation, dice())],
)
def test_weights_are_draws_of_patients(task, frame):
    found = task(frame)
    rng = np.random.default_rng(4)
    for _ in range(5):
        counts = rng.multinomial(
            len(found.patients), [1 / len(found.patients)] * len(found.patients)
        )
        by_name = dict(zip(found.patients, counts, strict=True))
        again = equal(task(drawn(frame, [by_name[name] for name in frame["patient"].unique()])))
        weighted = found.scores(counts[None].astype(float))
        assert set(weighted) == set(again)
        for metric, values in again.items():
            np.testing.assert_allclose(weighted[metric][0], values, atol=1e-9, err_msg=metric)


def test_images_of_a_patient_count_as_one():
    frame = answers()
    often = pd.concat([frame, *[frame[frame["patient"] == "p0"]] * 7])
    once, again = (evaluation.classification(f) for f in (frame, often))
    weights = np.random.default_rng(0).random((6, len(once.patients)))
    for metric, values in once.scores(weights).items():
        np.testing.assert_allclose(again.scores(weights)[metric], values, atol=1e-12)
    np.testing.assert_allclose(again.primary, once.primary, atol=1e-12)


def test_dice_is_the_mean_of_the_means_of_classes():
    frame = dice()
    found = equal(evaluation.segmentation(frame))
    for run, part in frame.groupby("seed"):
        means = part.groupby("class")[list(evaluation.SEGMENTED)].mean()
        assert found["dice"][run] == pytest.approx(means["dice"].iloc[1:].mean())
        assert found["dice_with_background"][run] == pytest.approx(means["dice"].mean())
        assert found["miou"][run] == pytest.approx(means["iou"].mean())
        assert found["hd95"][run] == pytest.approx(means["hd95"].iloc[1:].mean())
        assert found["boundary_mae"][run] == pytest.approx(means["boundary_mae"].mean())
        for c, value in means["dice"].items():
            assert found[f"dice_{c}"][run] == pytest.approx(value)


@pytest.mark.parametrize(
    ("task", "frame", "metric"),
    [
        (evaluation.classification, answers(), "balanced_accuracy"),
        (evaluation.segmentation, dice(), "dice"),
    ],
)
def test_parts_of_patients_have_the_primary_metric_as_mean(task, frame, metric):
    found = task(frame)
    for values in (found.parts, found.primary):
        np.testing.assert_allclose(np.nanmean(values, axis=1), equal(found)[metric], atol=1e-12)


def test_parts_of_complete_patients_are_their_own_scores():
    frame = dice().fillna(0.5)
    found = evaluation.segmentation(frame)
    own = frame[frame["class"] > 0].pivot_table("dice", "seed", "patient")
    np.testing.assert_allclose(found.parts, own)
    np.testing.assert_allclose(found.primary, own)


def test_rare_classes_do_not_widen_the_balanced_accuracy():
    """One answer for all: 0.5 whoever the patients are, and no spread."""
    frame = answers(patients=40, classes=2).assign(predicted=1)
    found = evaluation.classification(frame)
    np.testing.assert_allclose(found.primary, 0.5)
    assert np.ptp(found.parts) > 0.5


def test_draws_without_a_class_have_no_balanced_accuracy_and_no_area():
    frame = answers(classes=2, most=1)
    found = evaluation.classification(frame)
    of_patient = frame.drop_duplicates("patient").set_index("patient")["label"][found.patients]
    scores = found.scores((of_patient == 1).to_numpy(float)[None])
    assert np.isnan(scores["balanced_accuracy"]).all()
    assert np.isnan(scores["auroc"]).all()
    assert np.isfinite(scores["accuracy"]).all()


def test_draws_without_a_class_have_no_mean_over_classes():
    found = evaluation.segmentation(dice())
    without = found.patients.isin(["p1", "p3"]).astype(float)[None]
    scores = found.scores(without)
    for metric in ("dice", "dice_with_background", "miou", "hd95", "boundary_mae"):
        assert np.isnan(scores[metric]).all(), metric
    assert np.isfinite(scores["dice_1"]).all()
    never = dice()  # a class that no patient has is none
    never.loc[never["class"] == 2, list(evaluation.SEGMENTED)] = np.nan
    assert np.isfinite(equal(evaluation.segmentation(never))["dice"]).all()


def test_a_class_that_no_truth_has_is_none_whatever_was_predicted():
    """A stray pixel of it scores 0 in its image, in one run of two."""
    nowhere = dice(classes=4)
    nowhere.loc[nowhere["class"] == 2, ["present", *evaluation.SEGMENTED]] = 0, *[np.nan] * 4
    stray = nowhere.copy()
    pixel = (stray["class"] == 2) & (stray["seed"] == 1) & (stray["patient"] == "p0")
    stray.loc[pixel, ["dice", "iou"]] = 0.0
    stray["boundary_mae"] = nowhere["boundary_mae"] = 1.0
    found, expected = (evaluation.segmentation(frame) for frame in (stray, nowhere))
    weights = np.random.default_rng(0).integers(0, 3, (6, 5)).astype(float)
    for metric, values in expected.scores(weights).items():
        np.testing.assert_allclose(found.scores(weights)[metric], values, err_msg=metric)
    assert np.isnan(equal(found)["dice_2"]).all()
    np.testing.assert_allclose(found.parts, expected.parts)
    np.testing.assert_allclose(found.primary, expected.primary)
    assert np.isfinite(equal(found)["boundary_mae"]).all()


def test_classes_that_a_prediction_lacks_are_counted():
    frame = dice()  # 2 runs, 5 patients with 11 images; 2 of 11 missed, class 2 of 3 patients
    found = evaluation.segmentation(frame)
    assert found.missed == {"hd95": (2 * (5 + 3) * 2, 2 * (5 + 3) * 11), "boundary_mae": (0, 176)}
    frame.loc[frame["class"] == 2, "boundary_mae"] = np.nan  # a class without a boundary
    frame["missed_boundary_mae"] = 3
    assert evaluation.segmentation(frame).missed["boundary_mae"] == (2 * 5 * 3, 2 * 5 * 11)
    assert evaluation.classification(answers()).missed == {}


def brute_area(patient, label, score, weights):
    """The weighted share of pairs that are in order, pair by pair."""
    each = weights[patient] / np.bincount(patient)[patient]
    won = total = 0.0
    for i in np.flatnonzero(label):
        for j in np.flatnonzero(~label):
            total += each[i] * each[j]
            won += each[i] * each[j] * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    return won / total


@pytest.mark.parametrize("classes", [2, 3])
def test_areas_are_shares_of_pairs(classes):
    frame = answers(runs=1, patients=8, classes=classes)
    found = evaluation.classification(frame)
    weights = np.random.default_rng(1).integers(1, 4, (5, 8)).astype(float)
    patient = found.patients.get_indexer(frame["patient"])
    for row, area in zip(weights, found.scores(weights)["auroc"][:, 0], strict=True):
        of_class = [
            brute_area(patient, (frame["label"] == c).to_numpy(), frame[f"probability_{c}"], row)
            for c in range(classes)
        ]
        assert area == pytest.approx(np.mean(of_class), abs=1e-12)


def test_classes_are_those_of_the_answers_not_those_that_occur():
    """Of three classes, two in the test set: the area is the mean of two. Columns that are empty
    are another dataset's."""
    frame = answers(patients=60, most=1).query("label < 2").assign(probability_3=np.nan)
    columns = [f"probability_{c}" for c in range(3)]
    frame["predicted"] = frame[columns[:2]].to_numpy().argmax(1)
    found = equal(evaluation.classification(frame))
    for run, part in frame.groupby("seed"):
        expected = np.mean(
            [roc_auc_score(part["label"] == c, part[f"probability_{c}"]) for c in range(2)]
        )
        assert found["auroc"][run] == pytest.approx(expected, abs=1e-9)
    never = evaluation.classification(frame.assign(**dict.fromkeys(columns, np.nan)))
    assert all(np.isnan(values).all() for values in equal(never).values())


def test_areas_of_many_images_take_little_memory():
    """Pairs of 20,000 images would take 3 gigabytes."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 20_000)
    probability = np.clip(0.3 * label + 0.7 * rng.random(len(label)), 0, 1)
    frame = pd.DataFrame(
        {"fold": 0, "seed": 0, "patient": np.arange(len(label)) // 2, "record": range(len(label))}
        | {"label": label, "predicted": (probability > 0.5).astype(int)}
        | {"probability_0": 1 - probability, "probability_1": probability}
    )
    tracemalloc.start()
    try:
        found = evaluation.classification(frame)
        area = found.scores(np.ones((200, 10_000)))["auroc"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500e6
    assert np.ptp(area) == 0
    assert area[0, 0] == pytest.approx(roc_auc_score(label, probability), abs=1e-9)


def test_folds_have_patients_of_their_own():
    one = dice()
    other = dice(seed=1).assign(fold=1)
    other["patient"] = "q" + other["patient"]
    both = evaluation.segmentation(pd.concat([one, other]))
    assert both.parts.shape == both.primary.shape == (4, 10)
    assert np.isnan(both.primary[0, 5:]).all()
    assert both.images == 110
    expected = np.concatenate([equal(evaluation.segmentation(f))["dice"] for f in (one, other)])
    np.testing.assert_allclose(equal(both)["dice"], expected)
    none = both.scores(np.repeat([0.0, 1.0], 5)[None])["dice"][0]
    assert np.isnan(none[:2]).all()
    np.testing.assert_allclose(none[2:], expected[2:])


def test_answers_that_are_not_finite_have_no_scores():
    frame = answers()
    frame.loc[frame.index[frame["seed"] == 1][0], "probability_0"] = np.nan
    found = equal(evaluation.classification(frame))
    for metric, values in found.items():
        assert np.isfinite(values[0]), metric
        assert np.isnan(values[1]), metric


def test_one_class_has_no_area_and_no_kappa():
    frame = answers(classes=3).query("label == 0")
    found = equal(evaluation.classification(frame))
    assert np.isnan(found["auroc"]).all()
    assert np.isnan(found["kappa"]).all()
    assert np.isfinite(found["accuracy"]).all()


FOLDS = [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
"""Weights of p0 to p5: p3 to p5, p0 or p0 to p2 are left out."""


def in_two_folds(frame):
    """p0 to p2 are tested in fold 0, the others in fold 1."""
    fold = (frame["patient"] > "p2").astype(int)
    return frame.assign(fold=fold, seed=0)


def test_whose_class_nobody_else_has_in_the_fold_is_not_left_out():
    """The mean over the other folds is of the study without a fold, not without a patient."""
    frame = in_two_folds(dice(patients=6, runs=1))
    last = (frame["class"] == 2) & frame["patient"].isin(("p1", "p2"))
    frame.loc[last, [*evaluation.SEGMENTED]] = np.nan
    found = evaluation.segmentation(frame).scores(np.array(FOLDS))
    for metric in ("dice", "dice_with_background", "miou", "hd95"):
        assert np.isfinite(found[metric]).tolist() == [[True, False], [False, False], [False, True]]
    assert np.isfinite(found["dice_2"]).tolist() == [[True, False], [False, True], [False, True]]


def test_nor_is_who_alone_in_the_fold_is_of_a_label():
    frame = in_two_folds(answers(runs=1, patients=6, classes=2))
    label = frame["patient"].isin(("p0", "p3")).astype(int)
    found = evaluation.classification(frame.assign(label=label)).scores(np.array(FOLDS))
    for metric in ("balanced_accuracy", "auroc", "kappa"):
        assert np.isfinite(found[metric]).tolist() == [[True, False], [False, False], [False, True]]
    assert np.isfinite(found["accuracy"]).tolist() == [[True, False], [True, True], [False, True]]
