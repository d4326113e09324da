"""Scores against hand-made cases, MONAI, and the properties that a score must have."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou

from dpmedbench.constant_predictor import most_frequent_class
from dpmedbench.errors import UserError
from dpmedbench.segmentation_metrics import (
    SegmentationScores,
    boundary_rows,
    hausdorff95,
    image_scores,
)

CLASSES = 4
labels = arrays(np.uint8, (7, 6), elements=st.integers(0, CLASSES - 1))
ungraded = arrays(np.bool_, (7, 6))
quick = settings(max_examples=40, deadline=None)


def one_hot(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([image == label for label in range(CLASSES)])[None])


def over_images(predictions: np.ndarray, truths: np.ndarray) -> dict:
    scores = SegmentationScores(CLASSES)
    scores.update(torch.from_numpy(predictions), torch.from_numpy(truths))
    return scores.compute()


def test_absent_class_rule() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 1, 2]], np.uint8)
    scores = image_scores(prediction, truth, CLASSES)
    np.testing.assert_allclose(scores["dice"], [1, 2 / 3, 0, math.nan])
    np.testing.assert_allclose(scores["iou"], [1, 1 / 2, 0, math.nan])
    assert scores["present"].tolist() == [True, True, False, False]
    assert scores["pixels"].tolist() == [2, 2, 0, 0]
    assert np.isnan(scores["hd95"]).tolist() == [False, False, True, True]
    missed = image_scores(np.zeros_like(truth), truth, CLASSES)
    assert missed["dice"][1] == missed["iou"][1] == 0
    assert np.isnan(missed["hd95"][1])


@quick
@given(labels, labels, ungraded)
def test_dice_iou_and_hausdorff_equal_monai(prediction, truth, hidden) -> None:
    seen = np.where(hidden, 255, truth)
    scores = image_scores(prediction, seen, CLASSES)
    sides = one_hot(np.where(hidden, 255, prediction)), one_hot(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's on absent classes
        apart = compute_hausdorff_distance(*sides, include_background=True, percentile=95)[0]
    both = sides[0].any((-1, -2))[0] & sides[1].any((-1, -2))[0]
    np.testing.assert_allclose(scores["hd95"], np.where(both, apart, np.nan), rtol=1e-5)
    # MONAI leaves a class out wherever the truth lacks it; here a false find counts 0.
    in_truth = scores["present"]
    np.testing.assert_allclose(
        scores["dice"][in_truth], compute_dice(*sides)[0].numpy()[in_truth], rtol=1e-6
    )
    np.testing.assert_allclose(
        scores["iou"][in_truth], compute_iou(*sides)[0].numpy()[in_truth], rtol=1e-6
    )


@quick
@given(labels, labels, ungraded)
def test_range_symmetry_and_the_perfect_answer(prediction, truth, hidden) -> None:
    seen = np.where(hidden, 255, truth)
    scores = image_scores(prediction, seen, CLASSES, boundaries=3)
    for name in ("dice", "iou"):
        found = scores[name][~np.isnan(scores[name])]
        assert ((found >= 0) & (found <= 1)).all()
    swapped = image_scores(truth, np.where(hidden, 255, prediction), CLASSES, boundaries=3)
    for name in ("dice", "iou", "hd95", "boundary_mae"):
        np.testing.assert_allclose(scores[name], swapped[name])
    perfect = image_scores(truth, seen, CLASSES, boundaries=3)
    present = perfect["present"]
    assert (perfect["dice"][present] == 1).all()
    assert (perfect["iou"][present] == 1).all()
    assert (perfect["hd95"][present] == 0).all()
    assert np.isnan(perfect["dice"][~present]).all()
    assert set(perfect["boundary_mae"][~np.isnan(perfect["boundary_mae"])]) <= {0.0}


@quick
@given(labels, labels, labels, ungraded)
def test_ungraded_pixels_have_no_effect(prediction, other, truth, hidden) -> None:
    seen = np.where(hidden, 255, truth)
    changed = np.where(hidden, other, prediction)
    before = image_scores(prediction, seen, CLASSES, boundaries=3)
    after = image_scores(changed, seen, CLASSES, boundaries=3)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)
    np.testing.assert_equal(
        over_images(prediction[None], seen[None]), over_images(changed[None], seen[None])
    )


@quick
@given(arrays(np.uint8, (2, 3, 5, 4), elements=st.integers(0, CLASSES - 1)))
def test_scores_of_images_and_of_batches_agree(pair) -> None:
    predictions, truths = pair
    truths = truths.copy()
    truths[0, 0] = 255
    found = over_images(predictions, truths)
    single = [image_scores(p, t, CLASSES) for p, t in zip(predictions, truths, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        dice = np.nanmean([scores["dice"] for scores in single], axis=0)
        iou = np.nanmean([scores["iou"] for scores in single], axis=0)
        np.testing.assert_allclose(found["dice_per_class"], dice)
        np.testing.assert_allclose(found["dice"], np.nanmean(dice[1:]))
        np.testing.assert_allclose(found["dice_with_background"], np.nanmean(dice))
        np.testing.assert_allclose(found["miou"], np.nanmean(iou))
    right = (predictions == truths)[truths != 255].mean()
    assert found["pixel_accuracy"] == pytest.approx(right)


def test_batches_may_be_of_any_size_and_be_logits() -> None:
    made = np.random.default_rng(0)
    predictions, truths = made.integers(0, CLASSES, (2, 5, 6, 7), dtype=np.uint8)
    scores = SegmentationScores(CLASSES)
    for part in (slice(0, 2), slice(2, 2), slice(2, 5)):
        logits = torch.nn.functional.one_hot(torch.from_numpy(predictions[part]).long(), CLASSES)
        scores.update(logits.movedim(-1, 1).float(), torch.from_numpy(truths[part]))
    np.testing.assert_equal(scores.compute(), over_images(predictions, truths))


def test_mean_is_over_images_before_classes() -> None:
    truths = np.array([[[1, 1]], [[1, 2]], [[1, 2]]], np.uint8)
    predictions = np.array([[[1, 1]], [[2, 2]], [[1, 2]]], np.uint8)
    found = over_images(predictions, truths)
    assert found["dice_per_class"][1:3] == pytest.approx([2 / 3, (2 / 3 + 1) / 2])
    assert np.isnan(found["dice_per_class"][0])
    assert found["dice"] == pytest.approx((2 / 3 + 5 / 6) / 2)


def test_labels_that_are_no_class_are_refused() -> None:
    bad, good = np.full((1, 2, 2), CLASSES, np.uint8), np.zeros((1, 2, 2), np.uint8)
    for prediction, truth in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="above 3"):
            over_images(prediction, truth)
        with pytest.raises(ValueError, match="above 3"):
            image_scores(prediction[0], truth[0], CLASSES)


def test_nothing_graded_has_no_score() -> None:
    nothing = np.full((1, 2, 2), 255, np.uint8)
    found = over_images(np.zeros_like(nothing), nothing)
    assert all(np.isnan(value).all() for value in found.values())
    scores = image_scores(nothing[0] * 0, nothing[0], CLASSES, boundaries=3)
    assert all(np.isnan(scores[name]).all() for name in ("dice", "iou", "hd95", "boundary_mae"))


def test_hausdorff_of_shifted_squares() -> None:
    here, there = np.zeros((2, 20, 20), bool)
    here[5:10, 5:10] = True
    there[5:10, 9:14] = True
    assert hausdorff95(here, there) == pytest.approx(4)
    there[:] = False
    there[0, 0] = True
    assert hausdorff95(there, here) == pytest.approx(
        np.percentile(
            [
                math.hypot(r, c)
                for r in range(5, 10)
                for c in range(5, 10)
                if r in (5, 9) or c in (5, 9)
            ],
            95,
        )
    )


def stack(rows: list[int], height: int = 12) -> np.ndarray:
    """A column of labels whose boundaries are at `rows`; the last closes the retina."""
    column = np.searchsorted(rows, np.arange(height), side="right")
    return np.where(column == len(rows), 0, column).astype(np.uint8)


def test_boundaries_of_a_column() -> None:
    column = stack([2, 4, 9])[:, None]
    assert column.ravel().tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0]
    assert boundary_rows(column, 3).ravel().tolist() == [2, 4, 9]


def test_fluid_moves_no_boundary() -> None:
    column = stack([2, 4, 9])[:, None]
    column[[3, 6, 7, 10]] = 3  # in layer 1, in layer 2, under the retina
    assert boundary_rows(column, 3).ravel().tolist() == [2, 4, 9]


def test_a_layer_of_no_thickness_and_a_layer_that_is_missing() -> None:
    assert boundary_rows(stack([2, 2, 9])[:, None], 3).ravel().tolist() == [2, 2, 9]
    without_last = boundary_rows(stack([2, 9, 9])[:, None], 3).ravel()
    np.testing.assert_array_equal(without_last, [2, np.nan, 9])
    assert np.isnan(boundary_rows(np.zeros((4, 2), np.uint8), 3)).all()


def test_boundary_error_is_a_mean_over_columns_of_both() -> None:
    truth = np.stack([stack([2, 4, 9])] * 4, axis=1)
    prediction = np.stack(
        [stack([3, 4, 8]), stack([2, 6, 8]), np.zeros(12, np.uint8), stack([1, 2, 3])], axis=1
    )
    truth[0, 3] = 255  # a column that is not graded from top to bottom
    found = image_scores(prediction, truth, CLASSES, boundaries=3)["boundary_mae"]
    # Rows of the classes 0..3: the boundary under the retina, above 1, above 2; class 3 is none.
    np.testing.assert_allclose(found, [1, 0.5, 1, np.nan])
    assert np.isnan(image_scores(prediction, truth, CLASSES)["boundary_mae"]).all()


def test_most_frequent_class() -> None:
    targets = np.array([[[255, 255, 255, 1]], [[1, 2, 2, 255]]], np.uint8)
    assert most_frequent_class(targets) == 1
    assert most_frequent_class(iter([targets[1]])) == 2
    with pytest.raises(UserError, match="no graded pixel"):
        most_frequent_class(np.full((1, 2, 2), 255, np.uint8))


def test_constant_predictor() -> None:
    truth = np.array([[[0, 0, 0, 1]]], np.uint8)
    found = over_images(np.zeros_like(truth), truth)
    assert found["pixel_accuracy"] == pytest.approx(0.75)
    assert found["dice"] == 0
    assert found["dice_with_background"] == pytest.approx((6 / 7 + 0) / 2)
    assert found["miou"] == pytest.approx((3 / 4 + 0) / 2)
