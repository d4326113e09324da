"""A user's own data: the documented example, the manifest's mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dpmedbench import splits, store, store_writer
from dpmedbench.datasets import custom
from dpmedbench.datasets.base import Unreadable
from dpmedbench.errors import UserError

GUIDE = (Path(__file__).parents[1] / "docs" / "custom_data.md").read_text(encoding="utf-8")
SIZE = (40, 50)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def options(**given):
    return custom.SPEC.choose(given)


def folder_of(tmp_path: Path, manifest: str, fluid: int = 1) -> Path:
    """The folder of the guide: random pictures, masks with a box of the value `fluid`."""
    folder = tmp_path / "my_scans"
    rng = np.random.default_rng(0)
    for name in ("a1", "a2", "b1", "c1", "d1"):
        mask = np.zeros(SIZE, np.uint8)
        mask[10:20, 10:30] = fluid
        for kind, array in (("images", rng.integers(0, 256, SIZE, np.uint8)), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
    (folder / "manifest.csv").write_text(manifest, encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", [0, 1], ids=["segmentation", "classification"])
def test_the_guide_works_as_it_says(tmp_path, place):
    from dpmedbench import config, config_files

    values = yaml.safe_load(config_files.CONFIG.read_text(encoding="utf-8"))
    first, second = map(yaml.safe_load, blocks("yaml"))
    values.update(first)
    if place:
        values.update(second)
    dataset = config.load(values).datasets["mine"]
    folder = folder_of(tmp_path, blocks("csv")[place], fluid=255)
    spec = custom.describe(folder, dataset.options)
    assert spec.task == dataset.spec.task == ("segmentation", "classification")[place]
    path = tmp_path / "mine.h5"
    store_writer.write(path, custom.read(folder, dataset.options), spec, dataset.image_size, {})
    with store.open_store(path) as opened:
        assert opened.image_size == (64, 64)
        assert opened.patients.tolist() == ["anna", "anna", "ben", "cleo", "dora"]
        counts = opened.provenance["class_counts"]
        frame = splits.make(
            opened.patients, opened.sources, opened.official, **dataset.split.model_dump()
        )
    if place:
        assert counts == {"healthy": 3, "oedema": 2}
        assert opened.title == "my_scans"
    else:
        assert counts["fluid"] / sum(counts.values()) == pytest.approx(0.1, abs=0.01)
        assert frame.loc[frame["split"] == "test", "patient"].tolist() == ["dora"]
    assert set(frame["split"]) == {"train", "val", "test"}


def test_the_guide_names_every_key():
    named = re.findall(r"^\| `(\w+)` \|", GUIDE.split("## The keys")[1], re.MULTILINE)
    assert sorted(named) == sorted({*custom.SPEC.options, "path"})


SEGMENTS = {"classes": ["background", "fluid"]}
LABELS = {"task": "classification"}
HEAD = "image,mask,label,patient,split\n"
ROW = "images/a1.png,masks/a1.png,dry,anna,\n"
WET = "images/b1.png,masks/b1.png,wet,ben,test\n"


@pytest.mark.parametrize(
    ("manifest", "given", "expected"),
    [
        (HEAD, SEGMENTS, "found no row"),
        ("", SEGMENTS, "no column image and no patient and no mask"),
        (HEAD.replace(",", ";") + ROW, SEGMENTS, "no column image and no patient and no mask"),
        ("image,label,patient\n" + ROW, SEGMENTS, "found no column mask, expected image, patient"),
        ("image,mask,patient\n" + ROW, LABELS, "found no column label"),
        (HEAD + ROW + ROW.replace("a1", "zz", 1), SEGMENTS, "line 3: found 'images/zz.png', which"),
        (HEAD + ROW.replace("s/a1.png,d", "s/zz.png,d"), SEGMENTS, "line 2: found 'masks/zz.png'"),
        (
            HEAD + ROW.replace("a1", 300 * "x", 1),
            SEGMENTS,
            r"which cannot be looked at \(File name",
        ),
        (HEAD + ROW + ROW, SEGMENTS, "line 3: found image 'images/a1.png' as in line 2"),
        (HEAD + ROW + ROW.replace("im", "./im", 1), SEGMENTS, "'./images/a1.png' as in line 2"),
        (HEAD + ROW.replace("anna", " "), SEGMENTS, "line 2: found no patient"),
        (HEAD + ROW.replace("masks/a1.png", ""), SEGMENTS, "line 2: found no mask"),
        (HEAD + ROW.replace("dry", ""), LABELS, "found as classes nothing, expected 2 to 255"),
        (HEAD + ROW + WET.replace("wet", ""), LABELS | {"classes": ["dry", "wet"]}, "no label"),
        (HEAD + ROW.replace(",\n", ",TEST\n"), SEGMENTS, "line 2: found split 'TEST', expected"),
        (HEAD + ROW, LABELS, r"my_scans/manifest.csv: found as classes dry, expe"),
        (HEAD + ROW + WET, LABELS | {"classes": ["dry", "damp"]}, "line 3: found label 'wet'"),
        (HEAD + ROW.replace("anna", "a, b"), SEGMENTS, "line 2: found 6 cells, expected 5"),
        (HEAD + ROW.replace("anna", '"an'), SEGMENTS, "no readable manifest"),
        (HEAD + ROW, {}, "manifest.csv: found no classes set, expected the names"),
        (HEAD + ROW, {"classes": ["a", "a"]}, "found as classes a, a, expected"),
        (HEAD + ROW, SEGMENTS | {"mask_values": [0]}, r"csv: found mask_values \[0\], expected"),
        (HEAD + ROW, SEGMENTS | {"mask_values": [1, 1]}, "a different value for each"),
        (HEAD + ROW + WET, LABELS | {"mask_values": [0, 1]}, "masks; correct or leave out the"),
        (HEAD + ROW, SEGMENTS | {"manifest": "other.csv"}, r"other.csv: found no readable manif"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, manifest, given, expected):
    folder = folder_of(tmp_path, manifest)
    with pytest.raises(UserError, match=expected) as caught:
        custom.read(folder, options(**given))
    assert "\n" not in str(caught.value)


def test_a_manifest_as_people_write_it(tmp_path):
    absolute = tmp_path / "my_scans" / "images" / "b1.png"
    text = (
        "\ufeffpatient , image,age,mask,split\r\n"
        '"Doe, Jane",images/a1.png,61,masks/a1.png,val\r\n\r\n'
        f"ben ,{absolute},,masks/a1.png,\r\n"
    )
    folder = folder_of(tmp_path, text)
    for place in (folder, folder / "manifest.csv"):
        records = custom.read(place, options(**SEGMENTS))
        assert [r.patient for r in records] == ["Doe, Jane", "ben"]
        assert [r.split for r in records] == ["val", None]
        assert [r.source for r in records] == ["images/a1.png", str(absolute)]
        assert records[1].image().shape == records[1].target().shape == SIZE


def test_labels_that_are_numbers_go_by_value(tmp_path):
    rows = [ROW.replace("dry", "10"), WET.replace("wet", "9")]
    folder = folder_of(tmp_path, HEAD + "".join(rows))
    assert custom.describe(folder, options(**LABELS)).classes == ("9", "10")
    assert [r.target for r in custom.read(folder, options(**LABELS))] == [1, 0]


def test_numbers_with_a_point_or_sign_go_by_value_too(tmp_path):
    for labels in (("10.0", "9.0"), ("1", "-1")):
        rows = [ROW.replace("dry", labels[0]), WET.replace("wet", labels[1])]
        folder = folder_of(tmp_path, HEAD + "".join(rows))
        assert custom.describe(folder, options(**LABELS)).classes == labels[::-1]


def test_a_mask_of_another_size_is_refused_by_name(tmp_path):
    folder = folder_of(tmp_path, HEAD + ROW)
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(folder / "masks" / "a1.png")
    records, spec = (f(folder, options(**SEGMENTS)) for f in (custom.read, custom.describe))
    with pytest.raises(UserError, match=r"images/a1.png: found a mask .* shape \(50, 40\)"):
        store_writer.write(tmp_path / "x.h5", records, spec, (16, 16), {})


def test_broken_files_are_left_out_when_asked(tmp_path):
    folder = folder_of(tmp_path, HEAD + ROW + WET)
    path = folder / "images" / "a1.png"
    path.write_bytes(path.read_bytes()[:300])
    records, spec = (f(folder, options(**SEGMENTS)) for f in (custom.read, custom.describe))
    with pytest.raises(Unreadable, match="found no readable file"):
        store_writer.write(tmp_path / "x.h5", records, spec, (16, 16), {})
    store_writer.write(tmp_path / "x.h5", records, spec, (16, 16), {}, unreadable="leave_out")
    with store.open_store(tmp_path / "x.h5") as opened:
        assert opened.sources.tolist() == ["images/b1.png"]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_phantom_goes_through_the_loader_for_both_tasks(tmp_path, task):
    custom.write_phantom(tmp_path, 5, 2, (64, 96), seed=1)
    given = options(task=task, **(SEGMENTS if task == "segmentation" else {}))
    spec = custom.describe(tmp_path, given)
    records = custom.read(tmp_path, given)
    store_writer.write(tmp_path / "x.h5", records, spec, (64, 96), {}, threads=2)
    with store.open_store(tmp_path / "x.h5") as opened:
        assert opened.classes[-1] == ("fluid" if task == "segmentation" else "oedema")
        assert opened.official.tolist() == ["train"] * 8 + ["test"] * 2
        assert len(set(opened.patients)) == 5
        assert min(opened.provenance["class_counts"][c] for c in opened.classes) > 0
