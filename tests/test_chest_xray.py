"""The chest X-ray loader on hand-made trees, drawn ones and, where they are there, real ones."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmedbench import datasets, store, store_writer
from dpmedbench.datasets import chest_xray
from dpmedbench.datasets.base import Unreadable
from dpmedbench.errors import UserError
from dpmedbench.phantoms import chest

SHARED = Path(os.environ.get("DPMEDBENCH_SHARED_DATA", "none"))
STOP = {"unreadable": "stop"}
NAMES = (
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
)


def jpeg(grey: int, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (20, 16), grey).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def tree(top: Path, names: tuple[str, ...] = NAMES) -> Path:
    for number, name in enumerate(names):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(10 * number, "RGB" if number % 2 else "L"))
    return top


def archive(source: Path, path: Path, tops: tuple[str, ...] = ("chest_xray",)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [file for file in source.rglob("*") if file.is_file()]
    names = [(file, f"{top}/{file.relative_to(source)}") for top in tops for file in files]
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for file, name in names:
                tar.add(file, name)
    else:
        with zipfile.ZipFile(path, "w") as packed:
            for file, name in names:
                packed.write(file, name)
            packed.writestr("__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg", b"\0\5\x16\7")
    return path


def facts(records) -> list[tuple]:
    return [(r.source, r.patient, r.target, r.split, r.image().tobytes()) for r in records]


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        chest_xray.read(folder, STOP)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_labels_patients_and_official_split(tmp_path):
    records = chest_xray.read(tree(tmp_path), STOP)
    assert [record.source for record in records] == list(NAMES)
    assert [record.target for record in records] == [0, 1, 0, 0, 1, 1, 0, 1]
    assert [record.split for record in records] == ["test"] * 2 + ["train"] * 6
    assert [record.patient for record in records] == [
        "IM-0001", "person1_virus", "IM-0115", "NORMAL2-IM-0115", "person1_bacteria",
        "person1_bacteria", "NORMAL2-IM-1427", "person1946_bacteria",
    ]  # fmt: skip
    for number, record in enumerate(records):
        image = record.image()
        assert (image.shape, image.dtype) == ((16, 20), np.uint8)
        assert abs(image.astype(int) - 10 * number).max() <= 2


def test_found_wherever_one_points_packed_or_not(tmp_path):
    top = tree(tmp_path / "data" / "chest_xray")
    expected = facts(chest_xray.read(top, STOP))
    places = [
        top.parent,
        tmp_path,
        archive(top, tmp_path / "z" / "ChestXRay2017.zip"),
        archive(top, tmp_path / "t" / "chest.tar"),
    ]
    for place in [*places, places[2].parent, places[3].parent]:
        assert facts(chest_xray.read(place, STOP)) == expected


def test_kaggles_second_copy_is_not_counted(tmp_path, capsys):
    top = tree(tmp_path / "chest_xray")
    once = facts(chest_xray.read(top, STOP))
    path = archive(top, tmp_path / "archive.zip", ("chest_xray", "chest_xray/chest_xray"))
    records = chest_xray.read(path, STOP)
    assert facts(records) == once
    assert sum((Counter(r.counts) for r in records), Counter()) == {"files_of_a_second_copy": 8}
    assert "lies there 2 times, counted once" in capsys.readouterr().err


def test_colour_becomes_grey_by_the_stated_rule(tmp_path):
    top = tree(tmp_path)
    red = Image.new("RGB", (20, 16), (200, 40, 90))
    red.save(top / NAMES[0], "JPEG", quality=100, subsampling=0)
    grey = chest_xray.read(top, STOP)[0].image()
    assert grey.ndim == 2
    np.testing.assert_allclose(grey, 0.299 * 200 + 0.587 * 40 + 0.114 * 90, atol=2)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1946_bacteria_4875.jpeg", "person1946_bacteria"),
        ("person1946_virus_4875_1.jpeg", "person1946_virus"),
        ("person07_virus_1.jpeg", "person7_virus"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0011-0001.jpeg", "NORMAL2-IM-0011"),
    ],
)
def test_who_is_on_an_image(name, patient):
    assert chest_xray.patient_of(name) == patient


def test_wrong_trees_get_one_sentence(tmp_path):
    assert "found no file or folder" in refused(tmp_path / "nowhere")
    assert "chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg" in refused(tmp_path)
    assert "found no image in test, expected" in refused(tree(tmp_path / "a", NAMES[2:]))
    assert "found no image in train, expected" in refused(tree(tmp_path / "b", NAMES[:2]))
    strange = tree(tmp_path / "c", (*NAMES, "train/NORMAL/scan7.jpeg"))
    assert "scan7.jpeg: found a name that tells no patient" in refused(strange)
    tree(tmp_path / "d" / "mendeley", NAMES[:6])
    tree(tmp_path / "d" / "kaggle")
    assert "two versions of the dataset that differ" in refused(tmp_path / "d")


def test_images_cut_short_empty_or_of_another_kind_are_named(tmp_path):
    top = tree(tmp_path)
    path = top / NAMES[4]
    record = chest_xray.read(top, STOP)[4]
    whole = path.read_bytes()
    for length in [*range(0, len(whole) - 2, 9), len(whole) - 3]:
        path.write_bytes(whole[:length])
        with pytest.raises(Unreadable) as caught:
            record.image()
        assert str(caught.value).startswith(f"{top}/{NAMES[4]}: found ")
        assert "set unreadable to leave_out" in str(caught.value)
        assert "object at" not in str(caught.value)
        assert "\n" not in str(caught.value)
    Image.new("I;16", (20, 16), 4000).save(path, "PNG")
    with pytest.raises(Unreadable, match="more than 8 bits"):
        record.image()


def write(top: Path, path: Path, choice: str):
    options = {"unreadable": choice}
    records = chest_xray.read(top, options)
    store_writer.write(path, records, chest_xray.SPEC, (16, 16), options, threads=2, **options)


def test_broken_images_stop_or_are_left_out_and_counted(tmp_path, capsys):
    top = tree(tmp_path / "chest_xray")
    (top / NAMES[1]).write_bytes(b"")
    (top / NAMES[5]).write_bytes(jpeg(9)[:300])
    with pytest.raises(UserError, match=r"person1_virus_6\.jpeg: found an empty file"):
        write(top, tmp_path / "a.h5", "stop")
    assert not (tmp_path / "a.h5").exists()
    write(top, tmp_path / "a.h5", "leave_out")
    said = capsys.readouterr().err
    assert NAMES[1] in said
    assert NAMES[5] in said
    with store.open_store(tmp_path / "a.h5") as opened:
        assert opened.num_records == 6
        assert opened.provenance["counts"]["unreadable"] == 2
        assert not set(opened.sources) & {NAMES[1], NAMES[5]}


def test_the_phantom_has_the_official_layout_and_goes_through_the_loader(tmp_path):
    chest_xray.write_phantom(tmp_path, 12, 2, (64, 80), seed=1)
    assert {path.name for path in tmp_path.iterdir()} == {"chest_xray"}
    records = chest_xray.read(tmp_path, STOP)
    assert len(records) == 24
    patients = {split: {r.patient for r in records if r.split == split} for split in
                ("train", "test")}  # fmt: skip
    assert (len(patients["train"]), len(patients["test"])) == (9, 3)
    assert not patients["train"] & patients["test"]
    assert {r.source.split("/")[0] for r in records} == {"train", "val", "test"}
    for split in patients:
        assert {r.target for r in records if r.split == split} == {0, 1}
    assert {"person1_bacteria", "person1_virus", "IM-0001", "NORMAL2-IM-0001"} <= (
        patients["train"] | patients["test"]
    )
    modes = Counter(Image.open(path).mode for path in tmp_path.rglob("*.jpeg"))
    assert modes == {"L": 21, "RGB": 3}
    for record in records:
        image = record.image()
        assert image.shape == (64, 80)
        assert image.std() > 20


def test_a_phantom_patient_depends_on_seed_and_number_only(tmp_path):
    def bytes_of(name: str, patients: int, seed: int) -> bytes:
        chest_xray.write_phantom(tmp_path / name, patients, 1, (48, 48), seed)
        return next((tmp_path / name).rglob("IM-0001-0001.jpeg")).read_bytes()

    assert bytes_of("a", 3, 5) == bytes_of("b", 5, 5) != bytes_of("c", 3, 6)


def test_impossible_phantoms_are_refused(tmp_path):
    for patients, scans, size in ((2, 1, (64, 64)), (3, 0, (64, 64)), (3, 1, (20, 64))):
        with pytest.raises(UserError, match="phantom"):
            chest_xray.write_phantom(tmp_path, patients, scans, size, 0)
    assert not list(tmp_path.rglob("*.jpeg"))


def test_a_drawn_finding_clouds_the_lungs_but_no_pixel_nor_the_mean_tells():
    def drawn(finding: str) -> np.ndarray:
        rngs = [np.random.default_rng([k, len(finding)]) for k in range(40)]
        return np.stack([chest.draw(chest.Child.born(rng), finding, (48, 60), rng) for rng in rngs])

    def auroc(ill: np.ndarray, well: np.ndarray) -> np.ndarray:
        above = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
        return above.mean(axis=(0, 1))

    well = drawn("none").astype(float)
    for finding in ("bacteria", "virus"):
        ill = drawn(finding).astype(float)
        assert 0.6 < auroc(ill, well).max() < 0.93
        assert 0.3 < auroc(ill.mean(axis=(1, 2)), well.mean(axis=(1, 2))) < 0.8


def test_the_loader_is_found_and_says_what_it_takes():
    spec = datasets.load("chest_xray").SPEC
    assert spec.choose({}) == STOP
    assert (spec.task, spec.channels, spec.classes) == (
        "classification", 1, ("normal", "pneumonia"),
    )  # fmt: skip
    assert spec.download.size == 1_235_512_464
    assert len(bytes.fromhex(spec.download.sha256)) == 32


@pytest.mark.skipif(
    not (SHARED / "chest_xray").is_dir(), reason="the real radiographs are not here"
)
def test_the_real_radiographs():
    records = chest_xray.read(SHARED / "chest_xray", STOP)
    assert len(records) == len({record.source for record in records}) == 5840
    patients = {split: {r.patient for r in records if r.split == split} for split in
                ("train", "test")}  # fmt: skip
    assert (len(patients["train"]), len(patients["test"])) == (3654, 428)
    assert not patients["train"] & patients["test"]
    assert Counter((record.split, record.target) for record in records) == {
        ("train", 0): 1341, ("train", 1): 3875, ("test", 0): 234, ("test", 1): 390,
    }  # fmt: skip
    numbers = {split: {"".join(filter(str.isdigit, p.split("-")[-1])) for p in group} for
               split, group in patients.items()}  # fmt: skip
    assert numbers["train"] & numbers["test"]  # N alone would make false overlaps

    splits, digests = {}, set()
    for record in records:
        image = record.image()
        assert (image.shape, image.dtype) == ((224, 224), np.uint8)
        digest = sha256(image).digest()
        assert splits.setdefault(digest, record.split) == record.split
        digests.add(digest)
    assert len(digests) < len(records)  # some are equal, none across the official split
