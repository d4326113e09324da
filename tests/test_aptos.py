"""The APTOS loader on hand-made folders and drawn ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpmedbench import archives, datasets, store, store_writer
from dpmedbench.datasets import aptos
from dpmedbench.datasets.base import Unreadable
from dpmedbench.errors import UserError
from dpmedbench.phantoms import fundus

OPTIONS = {"conflicts": "drop", "unreadable": "stop"}
GRADES = {"000c1434d8d7": 2, "001639a390f0": 4, "00000012": 0, "1e5": 1, "005b95c28852": 3}


def png(seed: int, size: tuple[int, int] = (12, 10)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(60, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(images: dict[str, bytes] | None = None, grades: dict[str, int] = GRADES) -> dict:
    if images is None:
        images = {key: png(number) for number, key in enumerate(grades)}
    table = "id_code,diagnosis\n" + "".join(f"{key},{grade}\n" for key, grade in grades.items())
    named = {f"train_images/{key}.png": data for key, data in images.items()}
    others = {"test.csv": b"id_code\n0005cfc8afb6\n", "test_images/0005cfc8afb6.png": png(99),
              "sample_submission.csv": b"id_code,diagnosis\n0005cfc8afb6,0\n"}  # fmt: skip
    return {"train.csv": table.encode(), **named, **others}


def save(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def total(records) -> Counter:
    return sum((Counter(record.counts) for record in records), Counter())


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        aptos.read(folder, OPTIONS)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_ids_are_names_and_grades_numbers_in_the_order_of_the_table(tmp_path):
    records = aptos.read(save(tmp_path, files()), OPTIONS)
    assert [(record.patient, record.target) for record in records] == list(GRADES.items())
    assert [record.source for record in records] == [f"train_images/{key}.png" for key in GRADES]
    assert {record.split for record in records} == {None}
    assert total(records) == {}
    for number, record in enumerate(records):
        expected = np.asarray(Image.open(io.BytesIO(png(number))))
        np.testing.assert_array_equal(record.image(), expected)


def test_found_wherever_one_points_packed_or_not(tmp_path):
    content = files()
    folder = save(tmp_path / "f" / aptos.COMPETITION, content)
    packed = tmp_path / "z" / f"{aptos.COMPETITION}.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in reversed(content.items()):
            file.writestr(name, data)
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(folder, "data")
    places = [folder, folder.parent, packed, packed.parent, tmp_path / "a.tar"]
    facts = [
        [(r.source, r.patient, r.target, r.image().tobytes()) for r in aptos.read(place, OPTIONS)]
        for place in places
    ]
    assert len(facts[0]) == 5
    assert all(fact == facts[0] for fact in facts)


def equal_images() -> dict[str, bytes]:
    """a and d equal with one grade, b, c and f equal with two; e is alone, of d's size."""
    grades = {"a": 1, "b": 2, "c": 2, "d": 1, "e": 0, "f": 3}
    first, second = png(1), png(2, (8, 8))
    alone = first[:-1] + bytes([first[-1] ^ 1])
    images = {"a": first, "b": second, "c": second, "d": first, "e": alone, "f": second}
    return files(images, grades)


def test_equal_files_are_one_group_and_conflicting_ones_are_dropped(tmp_path, capsys):
    records = aptos.read(save(tmp_path, equal_images()), OPTIONS)
    found = {Path(r.source).stem: (r.patient, r.target) for r in records}
    assert found == {"a": ("a", 1), "d": ("a", 1), "e": ("e", 0)}
    assert total(records) == {"equal_images": 5, "equal_images_labels_differ": 3}
    assert "3 images in 1 groups of equal files with unequal labels" in capsys.readouterr().err


def test_conflicting_labels_may_be_kept_in_one_group(tmp_path, capsys):
    records = aptos.read(save(tmp_path, equal_images()), OPTIONS | {"conflicts": "keep"})
    found = {Path(r.source).stem: (r.patient, r.target) for r in records}
    assert {key: found[key] for key in "bcf"} == {"b": ("b", 2), "c": ("b", 2), "f": ("b", 3)}
    assert total(records) == {"equal_images": 5, "equal_images_labels_differ": 3}
    assert "left out" not in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"", b"x", b"y", b"zz", b"zy"]), st.integers(0, 4))))
def test_groups_are_those_of_equal_bytes(rows):
    content = {f"{k:03}": data for k, (data, _) in enumerate(rows)}
    tree = archives.Tree(Path("here"), {k: len(v) for k, v in content.items()}, 0, "", content.get)
    groups = aptos._groups(tree, {name: name for name in content})
    assert sorted(name for group in groups for name in group) == list(content)
    for group in groups:
        equal = [k for k, data in content.items() if data and data == content[group[0]]]
        assert group == (equal or group[:1])


def test_only_images_of_equal_size_are_read_to_compare(tmp_path, monkeypatch):
    save(tmp_path, equal_images() | {"train_images/b.png": b"", "train_images/c.png": b""})
    seen = []
    read = archives.Tree.read
    monkeypatch.setattr(
        archives.Tree, "read", lambda s, name: (seen.append(name), read(s, name))[1]
    )
    aptos.read(tmp_path, OPTIONS)
    assert sorted(seen) == ["train.csv", *(f"train_images/{key}.png" for key in "ade")]


def test_missing_images_are_refused_and_further_ones_counted(tmp_path, capsys):
    content = files()
    folder = save(tmp_path / "more", content | {"train_images/extra.png": png(77)})
    records = aptos.read(folder, OPTIONS)
    assert len(records) == 5
    assert total(records) == {"images_without_label": 1}
    assert "1 images that train.csv does not name are left out (train_images/extra.png)" in (
        capsys.readouterr().err
    )
    lost = [f"train_images/{key}.png" for key in list(GRADES)[1:3]]
    folder = save(tmp_path / "less", {k: v for k, v in content.items() if k not in lost})
    assert f"found no file for 2 of 5 rows of train.csv ({', '.join(lost)})" in refused(folder)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", "found 0 rows with the columns none"),
        ("id_code,diagnosis\n", "found 0 rows"),
        ("id,level\na,1\n", "found 1 rows with the columns id, level, expected id_code and"),
        ("id_code,diagnosis\na,1\nb,5\n", r"line 3: found diagnosis '5', expected 0 to 4"),
        ("id_code,diagnosis\na,1\nb\n", r"line 3: found diagnosis ''"),
        ("id_code,diagnosis\na,1\n,2\n", r"line 3: found id_code ''"),
        ("id_code,diagnosis\na,1\na,2\n", r"line 3: found id_code 'a', expected a name that come"),
        ("id_code,diagnosis\na,1.0\n", r"line 2: found diagnosis '1\.0'"),
        ("id_code,diagnosis\n\xff,1\n", "found no readable CSV"),
    ],
)
def test_wrong_tables_are_named_with_the_line(tmp_path, table, expected):
    save(tmp_path, files() | {"train.csv": table.encode("latin-1")})
    with pytest.raises(UserError, match=expected) as caught:
        aptos.read(tmp_path, OPTIONS)
    assert str(caught.value).startswith(f"{tmp_path}/train.csv")


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    content = files()
    table = b"\xef\xbb\xbf" + content["train.csv"].replace(b"\n", b"\r\n")
    records = aptos.read(save(tmp_path, content | {"train.csv": table}), OPTIONS)
    assert [record.patient for record in records] == list(GRADES)


def test_without_data_one_sentence_says_how_to_get_them(tmp_path):
    message = refused(tmp_path)
    assert "kaggle competitions download -c aptos2019-blindness-detection" in message
    assert "log in to kaggle.com" in message
    images = {k: v for k, v in files().items() if k.startswith("train_images")}
    assert "train.csv: found no file" in refused(save(tmp_path, images))


def test_broken_images_stop_or_are_left_out_and_counted(tmp_path):
    content = files()
    names = [name for name in content if name.startswith("train_images")]
    whole = content[names[3]]
    save(tmp_path, content | {names[1]: b"", names[2]: b""})
    record = aptos.read(tmp_path, OPTIONS)[3]
    for length in range(0, len(whole) - 20, 7):  # behind lie checksums only
        (tmp_path / names[3]).write_bytes(whole[:length])
        with pytest.raises(Unreadable, match=r"found (an empty file|no readable picture|neither)"):
            record.image()
    options = OPTIONS | {"unreadable": "leave_out"}
    records = aptos.read(tmp_path, options)
    assert len(records) == 5
    assert total(records) == {}  # empty files are broken, not equal
    store_writer.write(tmp_path / "a.h5", records, aptos.SPEC, (16, 16), {}, unreadable="leave_out")
    with store.open_store(tmp_path / "a.h5") as opened:
        assert opened.sources.tolist() == [names[0], names[4]]
        assert opened.provenance["counts"]["unreadable"] == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 15), st.integers(0, 9), st.integers(1, 16), st.integers(1, 10))
def test_the_crop_is_the_box_of_what_is_bright(top, left, height, width):
    image = np.random.default_rng(0).integers(0, aptos.DARK + 1, (16, 10, 3), dtype=np.uint8)
    box = slice(top, top + height), slice(left, left + width)
    image[*box, 0] = 200
    np.testing.assert_array_equal(aptos.crop(image), image[box])
    np.testing.assert_array_equal(aptos.crop(aptos.crop(image)), image[box])


def test_a_bright_speck_does_not_widen_the_crop_and_a_dark_image_stays_whole():
    image = np.zeros((300, 300, 3), np.uint8)
    image[5, 290] = 255
    assert aptos.crop(image).shape == image.shape
    image[100:200, 50:250] = 90
    assert aptos.crop(image).shape == (100, 200, 3)


def test_the_phantom_has_the_official_layout_and_goes_through_the_loader(tmp_path, capsys):
    aptos.write_phantom(tmp_path, 10, 2, (48, 64), seed=3)
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv", "train_images"}
    records = aptos.read(tmp_path, OPTIONS)
    assert len(records) == 20 + 1
    assert len({record.patient for record in records}) == 20
    assert set(Counter(record.target for record in records)) == set(range(5))
    assert total(records) == {"equal_images": 4, "equal_images_labels_differ": 2}
    assert len(aptos.read(tmp_path, OPTIONS | {"conflicts": "keep"})) == 23
    assert any(record.patient.isdigit() for record in records)
    for record in records:
        image = record.image()
        assert image.ndim == 3
        assert image.shape[1] < 64  # the black at the sides is cropped
        assert image[..., 0].mean() > 1.3 * image[..., 2].mean()  # a fundus is red


def test_a_phantom_photograph_depends_on_seed_and_number_only(tmp_path):
    def images(name: str, patients: int, seed: int) -> dict[str, bytes]:
        aptos.write_phantom(tmp_path / name, patients, 1, (40, 48), seed)
        return {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")}

    few, many, other = images("a", 2, 5), images("b", 4, 5), images("c", 2, 6)
    assert few.items() & many.items()
    assert len(set(few.values()) - set(many.values())) == 0
    assert not set(few.values()) & set(other.values())


def test_impossible_phantoms_are_refused(tmp_path):
    for patients, scans, size in ((0, 1, (64, 64)), (3, 0, (64, 64)), (3, 1, (20, 64))):
        with pytest.raises(UserError, match="phantom"):
            aptos.write_phantom(tmp_path, patients, scans, size, 0)
    assert not list(tmp_path.rglob("*.png"))


def test_drawn_lesions_grow_with_the_grade_but_no_pixel_tells():
    def drawn(grade: int) -> np.ndarray:
        rngs = [np.random.default_rng(k) for k in range(30)]
        eyes = [fundus.Eye.born(rng) for rng in rngs]
        return np.stack([fundus.draw(eye, grade, (60, 60), rng) for eye, rng in
                         zip(eyes, rngs, strict=True)]).astype(float)  # fmt: skip

    # Up to the lesions the same numbers are drawn, so that what differs are the lesions.
    healthy, *ill = [drawn(grade) for grade in range(fundus.GRADES)]
    touched = [np.mean(abs(d - healthy).max(axis=-1) > 40) for d in ill]
    assert 0.002 < touched[0] < touched[1] < touched[2]
    assert touched[3] > touched[1]
    above = (ill[2][:, None] > healthy).mean(axis=(0, 1))
    assert 0.02 < above.min() < above.max() < 0.98


def test_the_loader_is_found_and_says_what_it_takes():
    spec = datasets.load("aptos").SPEC
    assert spec.choose({}) == OPTIONS
    assert spec.classes == ("no DR", "mild", "moderate", "severe", "proliferative")
    assert (spec.task, spec.channels, spec.download) == ("classification", 3, None)
