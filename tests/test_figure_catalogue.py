"""The catalogue of figures, and the files they are saved to."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import ALIKE, EVERY, OVER_EPOCHS, study

from dpmedbench import figures
from dpmedbench.errors import UserError
from dpmedbench.figures.described import describe


def test_every_module_with_a_drawing_is_in_the_catalogue():
    folder = Path(figures.__file__).parent
    drawing = {
        p.stem for p in folder.glob("*.py") if re.search(r"^def draw\(", p.read_text(), re.M)
    }
    assert set(figures.catalog()) == drawing - {"__init__"}
    assert set(OVER_EPOCHS) < set(figures.catalog())


def test_captions_are_filled_from_the_configuration():
    values = {field: f"<{field}>" for field in figures.FIELDS}
    for info in figures.catalog().values():
        caption = info.caption_with(values)
        assert len(info.title) < 60, info.name
        assert "<dataset>" in caption or info.scope == "study", info.name
        assert "{" not in caption, info.name
        assert set(info.published) <= set(figures.STUDIES), info.name


def test_every_published_figure_has_a_place():
    found = {
        (study, label) for info in figures.catalog().values() for study, label in
        info.published.items()
    }  # fmt: skip
    pairs = ("2 and 3", "5 and 6", "7 and 8", "9 and 10", "11 and 12", "13 and 14")
    wanted = {("bookkeeping", f"Figures {pair}") for pair in pairs}
    wanted |= {("bookkeeping", f"Figure {number}") for number in (1, 4)}
    wanted |= {("local_dp", f"Figure {number}") for number in (1, 2, 3, 4)}
    curves = ("Training time", "Training loss", "Validation loss", "Privacy spent", "Accuracy")
    wanted |= {("clipping", f"{curve} over iterations") for curve in curves}
    assert wanted <= found
    assert {"engines", "clipping"} <= {study for study, _ in found}


def test_a_figure_belongs_to_the_running_study_or_to_its_first():
    info = figures.catalog()["training_loss"]
    assert info.published_in("clipping") == "clipping"
    assert info.published_in("demo") == info.published_in("local_dp") == "bookkeeping"
    assert figures.catalog()["confusion_matrix"].published_in("demo") is None


def test_orders_differ():
    orders = [info.order for info in figures.catalog().values()]
    assert orders == sorted(set(orders))


def test_the_catalogue_is_light():
    program = (
        "import sys, ast, dataclasses, pathlib, importlib, inspect, string, functools, time\n"
        "started = time.process_time()\n"
        "from dpmedbench import figures\n"
        "figures.catalog()\n"
        "print(time.process_time() - started)\n"
        "heavy = {'matplotlib', 'pandas', 'numpy', 'seaborn', 'torch', 'pyarrow', 'h5py'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    library = str(Path(figures.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": library},
        stdout=-1,
        text=True,
        check=True,
    )
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.25
    assert heavy == "[]"


def test_drawing_never_imports_torch():
    made = study("one_cell")
    program = (
        "import importlib, sys\nfrom pathlib import Path\nfrom dpmedbench import figures\n"
        "from dpmedbench.figures import scans\n"
        f"root = Path({str(made.root)!r})\n"
        "given = {k: root / f'{k}.parquet' for k in figures.TABLES}\n"
        "given |= {'store': root / 'duke.h5', 'networks': [], 'benchmark': [], 'support': []}\n"
        f"given['masks'] = masks = [Path(p) for p in {[str(p) for p in made.masks]!r}]\n"
        "for name in figures.catalog():\n"
        "    importlib.import_module(f'dpmedbench.figures.{name}')\n"
        "for name in ('example_scans', 'test_masks'):\n"
        "    figures.render(name, 'duke', given, [root / 'x.svg'])\n"
        "scans.picture(masks[0])\n"
        "print(sorted({'torch', 'monai', 'opacus'} & set(sys.modules)))\n"
    )
    library = str(Path(figures.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": library},
        stdout=-1,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('"""T\n\nc"""\nNEEDS = ("cost",)\ndef draw(cost): ...', "ORDER"),
        ('"""T\n\nc"""\nORDER = "1"\nNEEDS = ("cost",)\ndef draw(cost): ...', "ORDER"),
        ('"""T\n\nc"""\nORDER = 1\nNEEDS = ("cash",)\ndef draw(cash): ...', "cash"),
        ('"""T\n\nc"""\nORDER = 1\nNEEDS = ("cost",)\ndef draw(): ...', "NEEDS"),
        ('"""T"""\nORDER = 1\nNEEDS = ("cost",)\ndef draw(cost): ...', "caption"),
        (
            '"""T\n\nc"""\nORDER = 1\nNEEDS = ()\nTASK = "sort"\ndef draw(): ...',
            r"TASK \['sort'\], allowed are segmentation, classification",
        ),
        (
            '"""T\n\nc"""\nORDER = 1\nNEEDS = ()\nSCOPE = "all"\ndef draw(): ...',
            r"SCOPE \['all'\], allowed are dataset, study",
        ),
        (
            '"""T\n\nc"""\nORDER = 1\nNEEDS = ()\nPUBLISHED = {"x": "1"}\ndef draw(): ...',
            r"PUBLISHED \['x'\], allowed are bookkeeping",
        ),
        (
            '"""T\n\nc"""\nORDER = 1\nNEEDS = ()\ndef draw(): ...\ndef numbers(cost): ...',
            r"numbers\(cost\), expected",
        ),
        ('"""T\n\n{sigma}"""\nORDER = 1\nNEEDS = ()\ndef draw(): ...', "sigma"),
    ],
)
def test_an_incomplete_module_is_refused(text, sentence, tmp_path):
    path = tmp_path / "drawing.py"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        describe(path)
    assert "drawing.py" in str(caught.value)


def test_a_module_without_a_drawing_is_a_helper(tmp_path):
    path = tmp_path / "helper.py"
    path.write_text("def curves(): ...")
    assert describe(path) is None


# Files


def test_the_caption_has_the_numbers_of_the_data(tmp_path):
    made = study("three_cells")
    given = made.tables | made.files()
    figures.render(
        "validation_accuracy", "duke", given, [tmp_path / "figure.txt"], "Written.\nBy hand."
    )
    text = (tmp_path / "figure.txt").read_text()
    history = made.inputs()["history"]
    last = history[history["epoch"] == history["epoch"].max()].set_index("mechanism")["val_dice"]
    assert text == (
        f"Written. By hand. Dice after epoch 4: Non-private {last['non_private']:.2f}, "
        f"Opacus flat {last['opacus_flat']:.2f} (σ = 1), "
        f"Opacus per-layer {last['opacus_per_layer']:.2f} (σ = 1).\n"
    )


def test_the_report_prints_a_caption_as_it_is(tmp_path):
    publish_parts = pytest.importorskip("docutils.core").publish_parts
    made = study("three_cells")
    outputs = [tmp_path / f"figure{suffix}" for suffix in (".txt", ".rst")]
    caption = "Of x_ and **y [generated], `z |a| {{ b }}::"
    figures.render("validation_accuracy", "duke", made.tables | made.files(), outputs, caption)
    plain, escaped = (output.read_text() for output in outputs)
    assert plain.startswith(caption)
    rendered = pytest.importorskip("jinja2").Template(escaped).render()
    html = publish_parts(rendered, writer_name="html")["body"]
    assert html == f"<p>{plain.strip()}</p>\n"


@pytest.mark.parametrize("setup", ["one_cell", "non_private_alone", "many_settings"])
def test_every_sentence_is_short_whatever_the_study(setup):
    inputs = study(setup).inputs()
    for name in EVERY:
        said = figures.numbers(name, **inputs)
        assert len(said) < 700, name
        assert "nan" not in said, name
        assert said == "" or said.endswith("."), name


@pytest.mark.parametrize("name", sorted(set(EVERY) - ALIKE))
def test_files_are_the_same_bytes_twice(name, tmp_path):
    # Pixels are drawn alike by nature; ids and dates of a vector file are not.
    suffixes = (".svg", ".png") if name == "test_dice" else (".svg",)
    for turn in ("one", "two"):
        study("three_cells").render(name, *(tmp_path / f"{turn}{suffix}" for suffix in suffixes))
    for suffix in suffixes:
        first = (tmp_path / f"one{suffix}").read_bytes()
        assert first == (tmp_path / f"two{suffix}").read_bytes()
        assert len(first) > 2000
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2 * len(suffixes)


def test_a_figure_of_many_cells_is_quick(tmp_path):
    made = study("four_models")
    started = time.process_time()
    made.render("validation_accuracy", tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert time.process_time() - started < 20


def test_what_cannot_be_drawn_is_refused(tmp_path):
    made = study("three_cells")
    with pytest.raises(UserError, match="expected one of"):
        made.render("no_such_figure", tmp_path / "x.svg")
    with pytest.raises(UserError, match=r"\.jpeg"):
        made.render("training_loss", tmp_path / "x.jpeg")
    with pytest.raises(UserError, match="found no history"):
        figures.render("training_loss", "duke", {}, [tmp_path / "x.svg"])
    with pytest.raises(UserError, match=r"masks\.h5"):
        figures._masks_of("duke", [tmp_path / "masks.h5"])
    assert not list(tmp_path.iterdir())
