"""The HDF5 store: what goes in comes out, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from toy_store import COLOUR, SPEC

from dpmedbench import resize, store, store_writer, threads
from dpmedbench.datasets.base import IGNORE, Record, Unreadable
from dpmedbench.errors import UserError


def records(count: int = 5, size=(12, 10)):
    rng = np.random.default_rng(0)
    for k in range(count):
        mask = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), size)
        image = rng.integers(0, 256, size, np.uint8)
        yield Record(image, mask, f"patient é{k // 2}", f"scan {k}", {"lifted": k})


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "toy.h5"
    store_writer.write(path, records(), SPEC, (12, 10), {"seed": 7})
    with store.open_store(path) as opened:
        assert (opened.name, opened.title, opened.task) == ("toy", "Toy", "segmentation")
        assert opened.classes == SPEC.classes
        assert (opened.num_records, opened.image_size, opened.channels) == (5, (12, 10), 1)
        assert opened.patients.tolist() == [f"patient é{k}" for k in (0, 0, 1, 1, 2)]
        assert opened.sources.tolist() == [f"scan {k}" for k in range(5)]
        images, masks = opened.read([3, 0, 3])
        with pytest.raises(IndexError):
            opened.read([5])
        provenance = opened.provenance
    expected = list(records())
    for row, k in enumerate((3, 0, 3)):
        np.testing.assert_array_equal(images[row], expected[k].image)
        np.testing.assert_array_equal(masks[row], expected[k].target)
    assert provenance["seed"] == 7
    assert (provenance["records"], provenance["patients"]) == (5, 3)
    assert provenance["counts"] == {"lifted": 10}
    pixels = np.bincount(np.concatenate([r.target.ravel() for r in expected]), minlength=256)
    assert list(provenance["class_counts"].values()) == pixels[[0, 1, 2, IGNORE]].tolist()


def test_layout(tmp_path):
    store_writer.write(tmp_path / "toy.h5", records(), SPEC, (6, 8), {})
    with h5py.File(tmp_path / "toy.h5") as file:
        for name in ("images", "masks"):
            assert file[name].shape == (5, 6, 8)
            assert file[name].chunks == (1, 6, 8)
            assert file[name].dtype == np.uint8
        assert (file["images"].compression, file["masks"].compression) == (None, "gzip")
        assert json.loads(file.attrs["classes"]) == ["background", "a", "b"]
        assert file.attrs["ignore_index"] == 255


def test_labels_and_colour(tmp_path):
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    given = [Record(image, label, "p", f"image {label}") for label in (2, 0)]
    store_writer.write(tmp_path / "c.h5", given, COLOUR, (5, 4), {})
    with store.open_store(tmp_path / "c.h5") as opened:
        images, labels = opened.read([0, 1])
        assert opened.channels == 3
        assert opened.provenance["class_counts"] == {"background": 1, "a": 0, "b": 1}
    assert labels.tolist() == [2, 0]
    np.testing.assert_array_equal(images[1], image)


def test_the_official_split_is_kept(tmp_path):
    homes = ("train", None, "test", "val", None)
    given = [dataclasses.replace(r, split=s) for r, s in zip(records(), homes, strict=True)]
    store_writer.write(tmp_path / "toy.h5", given, SPEC, (12, 10), {})
    with store.open_store(tmp_path / "toy.h5") as opened:
        assert opened.official.tolist() == ["train", "", "test", "val", ""]


def lazy(record, seconds=0.0, error=None):
    """The record with its arrays still to be made, after some time or not at all."""

    def image():
        time.sleep(seconds)
        if error:
            raise error
        return record.image

    return dataclasses.replace(record, image=image, target=lambda: record.target)


def test_arrays_made_on_many_threads_come_out_in_order(tmp_path):
    store_writer.write(tmp_path / "eager.h5", records(40), SPEC, (6, 8), {})
    delays = np.random.default_rng(1).uniform(0, 0.01, 40)
    given = [lazy(r, s) for r, s in zip(records(40), delays, strict=True)]
    store_writer.write(tmp_path / "lazy.h5", given, SPEC, (6, 8), {}, threads=8)
    assert digest(tmp_path / "lazy.h5") == digest(tmp_path / "eager.h5")
    with store.open_store(tmp_path / "lazy.h5") as opened:
        assert opened.sources.tolist() == [f"scan {k}" for k in range(40)]


def test_threads_share_the_work_and_stay_a_few_records_ahead(tmp_path):
    meeting = threading.Barrier(4, timeout=10)  # passed only by four at once
    handed, made, ahead = 0, 0, 0

    def given():
        nonlocal handed, ahead
        for record in records(80):
            handed += 1
            ahead = max(ahead, handed - made)
            yield dataclasses.replace(record, image=lambda r=record: met(r.image))

    def met(image):
        nonlocal made
        meeting.wait()
        made += 1
        return image

    store_writer.write(tmp_path / "toy.h5", given(), SPEC, (6, 8), {}, threads=4)
    assert made == 80
    assert ahead <= threads.AHEAD * 4 + 4


def test_a_broken_file_stops_or_is_left_out_and_counted(tmp_path, capsys):
    error = Unreadable("b.png: found no bytes, expected a PNG file; get it again.")
    given = [lazy(r, error=error if k == 1 else None) for k, r in enumerate(records())]
    path = tmp_path / "toy.h5"
    with pytest.raises(Unreadable, match="found no bytes"):
        store_writer.write(path, given, SPEC, (12, 10), {}, threads=2)
    assert not list(tmp_path.iterdir())
    store_writer.write(path, given, SPEC, (12, 10), {}, threads=2, unreadable="leave_out")
    with store.open_store(path) as opened:
        assert opened.sources.tolist() == ["scan 0", "scan 2", "scan 3", "scan 4"]
        assert opened.provenance["counts"] == {"lifted": 9, "unreadable": 1}
        assert opened.provenance["records"] == 4
    assert "left out: b.png: found no bytes" in capsys.readouterr().err


def test_arrays_may_lie_in_memory_as_they_like(tmp_path):
    store_writer.write(tmp_path / "a.h5", records(), SPEC, (12, 10), {})
    turned = [
        dataclasses.replace(r, image=np.asfortranarray(r.image), target=r.target[::-1][::-1])
        for r in records()
    ]
    store_writer.write(tmp_path / "b.h5", turned, SPEC, (12, 10), {})
    assert digest(tmp_path / "a.h5") == digest(tmp_path / "b.h5")
    with store.open_store(tmp_path / "b.h5") as opened:
        for row, record in enumerate(records()):
            np.testing.assert_array_equal(opened.images[row], record.image)


def digest(path) -> str:
    with store.open_store(path) as opened:
        return opened.digest


def test_the_digest_is_that_of_the_content(tmp_path):
    def written(name: str, change=lambda r: r, size=(12, 10), provenance=None) -> str:
        given = [change(r) if k == 2 else r for k, r in enumerate(records())]
        store_writer.write(tmp_path / name, given, SPEC, size, provenance or {})
        return digest(tmp_path / name)

    same = written("a.h5")
    assert written("b.h5", provenance={"other": 1}) == same

    def brighter(r):
        return dataclasses.replace(r, image=r.image ^ np.uint8(1))

    def remasked(r):
        return dataclasses.replace(r, target=np.zeros_like(r.target))

    def renamed(r):
        return dataclasses.replace(r, source="other")

    def moved(r):
        return dataclasses.replace(r, patient="other")

    def tested(r):
        return dataclasses.replace(r, split="test")

    changes = (brighter, remasked, renamed, moved, tested)
    others = [written("o.h5", change) for change in changes]
    others.append(written("o.h5", size=(6, 5)))
    assert len({same, *others}) == 7


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"source": "scan 0"}, "scan 0: found the same source twice"),
        ({"target": np.full((12, 10), 3, np.uint8)}, "scan 1: found mask value 3, expected 0 to 2"),
        ({"target": np.full((12, 9), 0, np.uint8)}, r"shape \(12, 9\)"),
        ({"target": np.zeros((12, 10))}, "mask of type float64"),
        ({"image": np.zeros((12, 10))}, "image of type float64"),
        ({"image": np.zeros((12, 10, 3), np.uint8)}, "3 channels, expected uint8 with 1"),
    ],
)
def test_records_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, change, expected):
    given = [dataclasses.replace(r, **change) if k == 1 else r for k, r in enumerate(records())]
    with pytest.raises(UserError, match=expected):
        store_writer.write(tmp_path / "toy.h5", given, SPEC, (12, 10), {})
    assert not list(tmp_path.iterdir())


def test_no_record_and_a_wrong_label_are_refused(tmp_path):
    with pytest.raises(UserError, match="found no record"):
        store_writer.write(tmp_path / "toy.h5", [], SPEC, (12, 10), {})
    wrong = Record(np.zeros((4, 4, 3), np.uint8), 3, "p", "s")
    with pytest.raises(UserError, match="label 3"):
        store_writer.write(tmp_path / "toy.h5", [wrong], COLOUR, (4, 4), {})


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "toy.h5"
    store_writer.write(path, records(), SPEC, (12, 10), {})
    before = path.read_bytes()

    def broken():
        yield from records(2)
        raise UserError("the third raw file is cut short")

    with pytest.raises(UserError, match="cut short"):
        store_writer.write(path, broken(), SPEC, (12, 10), {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["toy.h5"]


def test_files_that_are_no_store_get_one_sentence(tmp_path):
    def refused(path) -> str:
        with pytest.raises(UserError) as caught, store.open_store(path):
            pass
        assert str(caught.value).startswith(str(path))
        return str(caught.value)

    assert "found no file" in refused(tmp_path / "none.h5")
    good, bad = tmp_path / "toy.h5", tmp_path / "bad.h5"
    store_writer.write(good, records(), SPEC, (12, 10), {})
    for length in (0, 100, good.stat().st_size // 2, good.stat().st_size - 1):
        bad.write_bytes(good.read_bytes()[:length])
        assert "no whole HDF5 file" in refused(bad)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((2, 3, 3))
    assert "no dataset of this pipeline" in refused(tmp_path / "other.h5")


def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
    def peak(count: int) -> int:
        image = np.zeros((128, 128), np.uint8)
        given = (Record(image.copy(), image, "p", f"s{k}") for k in range(count))
        tracemalloc.start()
        store_writer.write(tmp_path / f"{count}.h5", given, SPEC, (128, 128), {})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(5)  # imports and caches
    few, many = peak(100), peak(500)
    assert many - few < 500_000  # 400 more records held in memory would be 13 million bytes


def test_resizing_keeps_class_numbers_and_antialiases_images():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 8
    mask[10:20] = IGNORE
    assert set(np.unique(resize.mask(mask, (23, 37)))) == {0, 8, IGNORE}
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    small = resize.image(stripes, (16, 16))[4:12, 4:12]
    assert abs(small.astype(int) - 128).max() < 20  # without antialiasing: 0 or 255
    assert resize.image(np.zeros((8, 9, 3), np.uint8), (4, 5)).shape == (4, 5, 3)
    np.testing.assert_array_equal(resize.mask(mask, (64, 64)), mask)


def test_image_and_mask_are_resized_onto_the_same_grid():
    mask = np.zeros((90, 110), np.uint8)
    mask[30:60, 40:80] = 1
    small = resize.image(mask * 200, (31, 37)) > 100
    assert (small != (resize.mask(mask, (31, 37)) == 1)).mean() < 0.05
