"""The UMN loader against hand-made and drawn files, and the reader of cells under it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpmedbench import matlab
from dpmedbench.datasets import umn
from dpmedbench.errors import UserError

SHAPE = (12, 10, 3)


def boxes(volumes) -> np.ndarray:
    made = np.empty((1, len(volumes)), object)
    for place, volume in enumerate(volumes):
        made[0, place] = volume
    return made


def content(patients: int = 2) -> dict[str, np.ndarray]:
    """Random volumes; of each patient's scans the last has no fluid."""
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 2, (2, *SHAPE), np.uint8) for _ in range(patients)]
    for mask in masks:
        mask[..., 2] = 0
    return {
        "AllSubjects": boxes([rng.integers(0, 256, SHAPE, np.uint8) for _ in range(patients + 1)]),
        "ManualFluid1": boxes([mask[0] for mask in masks]),
        "ManualFluid2": boxes([mask[1] for mask in masks]),
    }


def save(folder: Path, values: dict[str, np.ndarray], name: str = umn.FILE, pack=True) -> Path:
    folder.mkdir(exist_ok=True)
    scipy.io.savemat(folder / name, values, do_compression=pack)
    return folder / name


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize(
    ("grader", "join"),
    [
        (1, lambda a, b: a),
        (2, lambda a, b: b),
        ("union", lambda a, b: a | b),
        ("intersection", lambda a, b: a & b),
    ],
)
def test_every_scan_with_a_mask_by_each_grader(tmp_path, grader, join, pack):
    values = content()
    path = save(tmp_path, values, pack=pack)
    records = list(umn.read(tmp_path, {"grader": grader}))
    assert [r.source for r in records] == [
        f"Subject_0{p}/B-scan {s}" for p in (1, 2) for s in (1, 2, 3)
    ]
    assert [r.patient for r in records] == ["Subject_01"] * 3 + ["Subject_02"] * 3
    for place, record in enumerate(records):
        at = np.s_[:, :, place % 3]
        np.testing.assert_array_equal(record.image, values["AllSubjects"][0, place // 3][at])
        first, second = (values[f"ManualFluid{g}"][0, place // 3][at] for g in (1, 2))
        np.testing.assert_array_equal(record.target, join(first, second))
        assert record.target.dtype == np.uint8
    assert [r.counts["scans_without_fluid"] for r in records] == [0, 0, 1, 0, 0, 1]
    assert len(list(umn.read(path, {"grader": grader}))) == 6


def test_one_grader_is_enough_for_their_own_masks(tmp_path):
    values = content()
    del values["ManualFluid2"]
    save(tmp_path, values)
    assert len(list(umn.read(tmp_path, {"grader": 1}))) == 6
    assert "no variable ManualFluid2" in refused(tmp_path, 2)
    assert "no variable ManualFluid2" in refused(tmp_path, "union")


def refused(folder: Path, grader=1) -> str:
    with pytest.raises(UserError) as caught:
        list(umn.read(folder, {"grader": grader}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_look_alike_is_refused_under_either_name(tmp_path):
    values = content(3)
    values["AllSubjects"] = values["AllSubjects"][:, :3]
    other = save(tmp_path / "a", values, umn.LOOK_ALIKE)
    assert "UMN_Dataset.mat, another dataset" in refused(other.parent)
    assert "UMN_Dataset.mat, another dataset" in refused(other)
    renamed = save(tmp_path / "b", values)
    assert f"{renamed}: found 3 volumes and 3 masks, expected one volume more" in refused(
        renamed.parent
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ManualFluid1": boxes([np.full(SHAPE, 2, np.uint8)] * 2)}, "mask value 2 in volume 1"),
        ({"ManualFluid1": boxes([np.zeros((12, 10, 2), np.uint8)] * 2)}, r"shape \(12, 10, 2\), e"),
        ({"ManualFluid1": boxes([np.zeros(SHAPE)] * 2)}, "a mask of volume 1 with type float64"),
        ({"AllSubjects": boxes([np.zeros(SHAPE)] * 3)}, "AllSubjects of volume 1 with type floa"),
        ({"AllSubjects": boxes([np.zeros((3, 4), np.uint8)] * 3)}, r"shape \(3, 4\), expected"),
        ({"AllSubjects": np.zeros((1, 3))}, "AllSubjects missing or no cell array"),
    ],
)
def test_misshapen_content_is_named(tmp_path, change, expected):
    save(tmp_path, content() | change)
    with pytest.raises(UserError, match=expected):
        list(umn.read(tmp_path, {"grader": 1}))


def test_missing_and_broken_files_get_one_sentence(tmp_path):
    assert "found no folder" in refused(tmp_path / "nowhere")
    assert "found no UMNDataset.mat in it" in refused(tmp_path)
    for pack in (True, False):
        path = save(tmp_path, content(), pack=pack)
        whole = path.read_bytes()
        for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            assert refused(tmp_path, 2).startswith(str(path))
    path.write_bytes(b"this is no MATLAB file" * 40)
    assert "cannot be read to its end" in refused(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.lists(
        st.sampled_from([np.uint8, np.int16, np.float64, np.float32]).flatmap(
            lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5))
        ),
        min_size=1,
        max_size=4,
    ),
    pack=st.booleans(),
    before=st.booleans(),
)
def test_any_cells_come_out_as_they_went_in(tmp_path_factory, arrays, pack, before):
    path = tmp_path_factory.mktemp("cells") / "any.mat"
    values = {"first": np.arange(9.0)} if before else {}
    scipy.io.savemat(path, {**values, "box": boxes(arrays), "last": 1}, do_compression=pack)
    assert matlab.shapes(path)["box"] == (1, len(arrays))
    for found, expected in zip(matlab.cells(path, "box"), arrays, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match="found none missing or no cell array"):
        next(matlab.cells(path, "none"))


def test_one_volume_is_in_memory_at_a_time(tmp_path):
    volume = np.random.default_rng(0).integers(0, 256, (200, 200, 25), np.uint8)  # 1 MB
    values = {
        "AllSubjects": boxes([volume] * 21),
        "ManualFluid1": boxes([volume & 1] * 20),
    }
    save(tmp_path, values)
    next(umn.read(tmp_path, {"grader": 1}))  # imports and caches
    tracemalloc.start()
    assert sum(1 for _ in umn.read(tmp_path, {"grader": 1})) == 500
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * volume.nbytes  # of 41


def test_the_phantom_has_the_official_layout_and_goes_through_the_loader(tmp_path):
    umn.write_phantom(tmp_path, 2, 4, (64, 96), seed=1)
    values = scipy.io.loadmat(tmp_path / umn.FILE)
    shapes = {name: values[name].shape for name in values if not name.startswith("_")}
    assert shapes == {"AllSubjects": (1, 3), "ManualFluid1": (1, 2), "ManualFluid2": (1, 2)}
    for name in shapes:
        for cell in values[name][0]:
            assert (cell.shape, cell.dtype) == ((64, 96, 4), np.uint8)
    first, second = (list(umn.read(tmp_path, {"grader": g})) for g in (1, 2))
    assert len(first) == 8
    assert all(record.image.std() > 5 for record in first)
    assert 0 < np.mean([record.target.mean() for record in first]) < 0.3
    assert any((a.target != b.target).any() for a, b in zip(first, second, strict=True))

    umn.write_phantom(tmp_path / "alone", 1, 4, (64, 96), seed=1)
    alone = next(umn.read(tmp_path / "alone", {"grader": 1}))
    np.testing.assert_array_equal(alone.image, first[0].image)
    with pytest.raises(UserError, match="phantom"):
        umn.write_phantom(tmp_path, 1, 0, (64, 96), 0)
