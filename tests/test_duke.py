"""The Duke loader against hand-made files, drawn ones and, where they are there, the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpmedbench import datasets
from dpmedbench.datasets import duke
from dpmedbench.datasets.base import IGNORE
from dpmedbench.errors import UserError

SHARED = Path(os.environ.get("DPMEDBENCH_SHARED_DATA", "none"))
HEIGHT, WIDTH, SCANS = 20, 12, 3
LEVEL = np.arange(2.0, 18.0, 2.0)[:, None]  # boundaries at rows 2, 4, .. 16


def volume(**changes) -> dict[str, np.ndarray]:
    """Three scans; B-scan 2 is graded by grader 1 in columns 3 to 8."""
    shape = (HEIGHT, WIDTH, SCANS)
    images = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)
    layers = np.full((8, WIDTH, SCANS), np.nan)
    layers[:, 3:9, 1] = LEVEL
    fluid = np.full(shape, np.nan)
    fluid[:, :, 1] = 0
    empty = {"manualLayers2": np.full_like(layers, np.nan), "manualFluid2": np.full(shape, np.nan)}
    return {"images": images, "manualLayers1": layers, "manualFluid1": fluid, **empty, **changes}


def save(folder: Path, content: dict[str, np.ndarray], subject: int = 1) -> Path:
    path = folder / duke.FOLDER / f"Subject_{subject:02}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content, do_compression=True)
    return path


def test_a_graded_scan_is_found_cropped_and_labelled(tmp_path):
    content = volume()
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    assert (record.patient, record.source) == ("Subject_01", "Subject_01/B-scan 2")
    np.testing.assert_array_equal(record.image, content["images"][:, 3:9, 1])
    column = np.repeat([0, 1, 2, 3, 4, 5, 6, 7, 0], [2, 2, 2, 2, 2, 2, 2, 2, 4])
    np.testing.assert_array_equal(record.target, np.repeat(column[:, None], 6, axis=1))
    assert record.counts["columns"] == 6
    assert record.counts["columns_not_graded"] == record.counts["boundaries_lifted"] == 0


def test_the_folder_itself_or_its_parent_and_subjects_in_order(tmp_path):
    for subject in (10, 2, 1):
        save(tmp_path, volume(), subject)
    expected = ["Subject_01", "Subject_02", "Subject_10"]
    assert [r.patient for r in duke.read(tmp_path, {"grader": 1})] == expected
    assert [r.patient for r in duke.read(tmp_path / duke.FOLDER, {"grader": 1})] == expected


def test_every_pocket_number_is_fluid_even_outside_the_layers(tmp_path):
    content = volume()
    content["manualFluid1"][5, 4, 1] = 1
    content["manualFluid1"][9, 5, 1] = 17
    content["manualFluid1"][19, 6, 1] = 2
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    assert np.argwhere(record.target == duke.FLUID).tolist() == [[5, 1], [9, 2], [19, 3]]


def test_a_boundary_above_the_previous_one_is_lifted_to_it(tmp_path):
    content = volume()
    content["manualLayers1"][3, 4, 1] = 3  # above boundary 2 at row 6
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    column = record.target[:, 1]
    assert 3 not in column
    assert column[4:10].tolist() == [2, 2, 4, 4, 4, 4]
    assert record.counts["boundaries_lifted"] == 1


def test_columns_that_lack_a_boundary_are_ignored_and_counted(tmp_path):
    content = volume()
    content["manualLayers1"][2, 4, 1] = np.nan
    content["manualLayers1"][:, 6, 1] = np.nan
    content["manualFluid1"][7, 4, 1] = 1
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    ignored = (record.target == IGNORE).all(axis=0)
    assert ignored.tolist() == [False, True, False, True, False, False]
    assert (record.target == IGNORE).any(axis=0).sum() == 2
    assert record.counts["columns_not_graded"] == 2


def test_fluid_that_is_not_graded_is_ignored_inside_the_retina_only(tmp_path):
    content = volume()
    content["manualFluid1"][:, 5, 1] = np.nan
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    assert np.unique(record.target[2:16, 2]).tolist() == [IGNORE]
    assert np.unique(record.target[[0, 1, 16, 19], 2]).tolist() == [0]


def test_a_scan_with_layers_but_no_fluid_graded_is_left_out_and_counted(tmp_path, capsys):
    content = volume()
    content["manualLayers1"][:, 3:9, 2] = LEVEL
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 1})
    assert record.source == "Subject_01/B-scan 2"
    assert record.counts["scans_without_fluid_grade"] == 1
    assert "1 scans with layers but no fluid" in capsys.readouterr().err


def test_either_grader(tmp_path):
    content = volume()
    content["manualLayers2"][:, 2:5, 0] = LEVEL + 1
    content["manualFluid2"][:, :, 0] = 0
    save(tmp_path, content)
    (record,) = duke.read(tmp_path, {"grader": 2})
    assert record.source == "Subject_01/B-scan 1"
    assert record.target[:4, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("row", "first"), [(2.0, 2), (2.4, 2), (2.5, 3), (2.6, 3), (3.5, 4)])
def test_a_boundary_is_rounded_to_the_nearest_row(row, first):
    layers = np.repeat(LEVEL + 4, 2, axis=1)
    layers[0] = row
    mask, _ = duke.to_mask(layers, np.zeros((HEIGHT, 2)))
    assert np.flatnonzero(mask[:, 0])[0] == first


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(float, (8, 6), elements=st.one_of(st.floats(-3, 30), st.just(np.nan))),
    hnp.arrays(float, (24, 6), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0])),
)
def test_any_boundaries_give_layers_in_order_between_background(layers, fluid):
    mask, counts = duke.to_mask(layers, fluid)
    graded = np.isfinite(layers).all(axis=0)
    assert (mask[:, ~graded] == IGNORE).all()
    assert counts["columns_not_graded"] == (~graded).sum()
    assert ((mask == duke.FLUID) == ((fluid > 0) & graded)).all()
    for column, dry in zip(mask.T[graded], (fluid == 0).T[graded], strict=True):
        inside = column[dry]
        retina = inside[inside > 0]
        assert (np.diff(retina.astype(int)) >= 0).all()
        assert retina.size == 0 or retina.max() <= 7
        assert not (np.diff((inside > 0).astype(int)) != 0).sum() > 2  # one retina a column
    lifted = np.maximum.accumulate(np.floor(layers[:, graded] + 0.5), axis=0)
    again, more = duke.to_mask(lifted, fluid[:, graded])
    np.testing.assert_array_equal(again, mask[:, graded])
    assert more["boundaries_lifted"] == 0


def refused(folder: Path, grader: int = 1) -> str:
    with pytest.raises(UserError) as caught:
        list(duke.read(folder, {"grader": grader}))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_wrong_files_get_one_sentence(tmp_path):
    assert "found no folder" in refused(tmp_path / "nowhere")
    assert "Subject_01.mat" in refused(tmp_path)
    path = save(tmp_path, volume())
    assert f"{path}: found no scan" in refused(tmp_path, 2)
    assert "graded by grader 2" in refused(tmp_path, 2)

    path.write_bytes(b"this is no MATLAB file" * 40)
    assert f"{path}: found a file that cannot be read" in refused(tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = save(tmp_path, {k: v for k, v in volume().items() if not k.endswith("2")})
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(tmp_path).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": None}, "found no variable images"),
        ({"manualFluid1": None}, "found no variable manualFluid1"),
        ({"images": np.zeros((HEIGHT, WIDTH, SCANS))}, "found images with type float64"),
        ({"manualLayers1": np.zeros((7, WIDTH, SCANS))}, r"shape \(7, 12, 3\), expected"),
        ({"manualFluid1": np.zeros((HEIGHT, WIDTH, 2))}, r"shape \(20, 12, 2\), expected"),
        ({"manualFluid1": np.zeros((HEIGHT, WIDTH, SCANS), complex)}, "type complex128"),
    ],
)
def test_missing_and_misshapen_variables_are_named(tmp_path, change, expected):
    content = {k: v for k, v in volume(**change).items() if v is not None}
    path = save(tmp_path, content)
    message = refused(tmp_path)
    assert message.startswith(str(path))
    with pytest.raises(UserError, match=expected):
        list(duke.read(tmp_path, {"grader": 1}))


def test_one_subject_is_read_at_a_time(tmp_path):
    save(tmp_path, volume(), 1)
    save(tmp_path, volume(), 2).write_bytes(b"broken")
    records = duke.read(tmp_path, {"grader": 1})
    assert next(records).patient == "Subject_01"
    with pytest.raises(UserError, match="Subject_02"):
        next(records)


def test_the_phantom_has_the_official_layout_and_goes_through_the_loader(tmp_path):
    duke.write_phantom(tmp_path, 2, 3, (96, 112), seed=1)
    content = scipy.io.loadmat(tmp_path / duke.FOLDER / "Subject_01.mat")
    assert content["images"].shape == (96, 112, 61)
    assert content["images"].dtype == np.uint8
    assert content["manualLayers1"].shape == (8, 112, 61)
    assert content["manualFluid1"].shape == (96, 112, 61)
    graded = np.isfinite(content["manualLayers1"]).any(axis=(0, 1))
    assert graded.sum() == 3
    assert np.isnan(content["manualFluid1"][:, :, ~graded]).all()
    assert (content["images"].reshape(-1, 61).std(axis=0) > 5).all()

    records = list(duke.read(tmp_path, {"grader": 1}))
    assert [r.patient for r in records] == ["Subject_01"] * 3 + ["Subject_02"] * 3
    assert sum(r.counts["columns_not_graded"] for r in records) == 4
    assert sum(r.counts["boundaries_lifted"] for r in records) == 0
    for record in records:
        assert set(range(8)) <= set(np.unique(record.target))
    second = list(duke.read(tmp_path, {"grader": 2}))
    differ = [np.mean(a.target != b.target) for a, b in zip(records, second, strict=True)]
    assert 0.001 < min(differ) <= max(differ) < 0.2


def test_a_phantom_patient_depends_on_seed_and_number_only(tmp_path):
    def first_image(name: str, patients: int, seed: int) -> np.ndarray:
        duke.write_phantom(tmp_path / name, patients, 1, (64, 64), seed=seed)
        return next(duke.read(tmp_path / name, {"grader": 1})).image

    alone = first_image("a", 1, 5)
    np.testing.assert_array_equal(alone, first_image("b", 2, 5))
    other = first_image("c", 1, 6)
    assert alone.shape != other.shape or (alone != other).any()


@pytest.mark.parametrize("scans", [1, 2, 3, 4, 7, 11, 12, 30, 61])
def test_as_many_scans_are_graded_as_asked_for(scans):
    graded = duke._graded_scans(scans)
    assert len(set(graded)) == scans
    assert 0 <= graded.min() <= graded.max() < 61


def test_impossible_phantoms_are_refused(tmp_path):
    for patients, scans, size in ((0, 1, (64, 64)), (1, 62, (64, 64)), (1, 1, (20, 64))):
        with pytest.raises(UserError, match="phantom"):
            duke.write_phantom(tmp_path, patients, scans, size, 0)
    assert not list(tmp_path.rglob("*.mat"))


def test_datasets_are_found_by_their_spec():
    assert "duke" in datasets.names()
    assert "base" not in datasets.names()
    assert datasets.load("duke").SPEC is duke.SPEC
    assert len(duke.SPEC.classes) == 9
    with pytest.raises(UserError, match=r"found 'duck', expected one of .*duke"):
        datasets.load("duck")


@pytest.mark.skipif(not (SHARED / "duke").is_dir(), reason="the real scans are not here")
def test_the_real_scans():
    records = list(duke.read(SHARED / "duke", {"grader": 1}))
    assert len(records) == len({r.source for r in records}) == 110
    patients, scans = np.unique([r.patient for r in records], return_counts=True)
    assert patients.tolist() == [f"Subject_{k:02}" for k in range(1, 11)]
    assert scans.tolist() == [11] * 10
    pixels = sum(np.bincount(r.target.ravel(), minlength=256) for r in records)
    assert (pixels[:9] > 0).all()
    assert pixels[9:IGNORE].sum() == 0
    partly = {r.source: n for r in records if (n := r.counts["columns_not_graded"])}
    assert partly == {"Subject_04/B-scan 27": 4}
    assert pixels[IGNORE] == 4 * 496
    assert pixels[0] / pixels.sum() == pytest.approx(0.82, abs=0.02)
