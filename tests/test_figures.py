"""The figures: catalogue, drawn numbers, look, files."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import CLASSES, grid, write, write_store

from dpmedbench import figures, tables
from dpmedbench.errors import UserError

SIZE = (48, 48)
SIGMAS = (0.3, 0.5, 0.7, 1.0)
EVERY = sorted(figures.catalog())
OVER_EPOCHS = {
    "time_per_epoch": "seconds",
    "training_loss": "train_loss",
    "validation_loss": "val_loss",
    "epsilon_over_epochs": "epsilon",
    "validation_dice": "val_dice",
}
STUDIES = {
    "one_cell": (grid(mechanisms=("opacus_flat",)), 1),
    "non_private_alone": (grid(mechanisms=("non_private",)), 2),
    "three_cells": (grid(), 4),
    "no_non_private": (grid(mechanisms=("opacus_flat", "bookkeeping"), sigmas=SIGMAS), 14),
    "two_datasets": (
        grid(
            ("duke", "umn"),
            mechanisms=("non_private", "bookkeeping_automatic_mixopt"),
            sigmas=SIGMAS,
        ),
        14,
    ),
    "four_models": (
        grid(
            models=("unet", "nested_unet", "resnet18", "unet_wide"),
            mechanisms=("non_private", "opacus_flat", "random_sparsification"),
            sigmas=SIGMAS,
            folds=2,
        ),
        3,
    ),
    "many_settings": (
        grid(
            models=("unet", "nested_unet"),
            mechanisms=("non_private", *(f"mechanism_{letter}" for letter in "abcd")),
            sigmas=(0.1, 0.3, 0.5, 0.7, 1, 1.5, 2, 4, 6, 8),
        ),
        2,
    ),
}


class Study:
    """Made-up cells, their tables and stores on disk."""

    def __init__(self, root: Path, name: str) -> None:
        self.cells, epochs = STUDIES[name]
        self.root = root
        folders = write(root / "cells", self.cells, epochs, images=3, size=SIZE)
        self.tables = {kind: root / f"{kind}.parquet" for kind in tables.KINDS}
        for kind, path in self.tables.items():
            tables.collect(kind, folders, path)
        self.masks = [folder / "masks.h5" for folder in folders]
        self.datasets = sorted({cell.dataset for cell in self.cells})
        for dataset in self.datasets:
            write_store(root / f"{dataset}.h5", dataset, 6, SIZE)

    def inputs(self, dataset: str) -> dict[str, object]:
        frames = {kind: figures.load(path, dataset) for kind, path in self.tables.items()}
        masks = figures._masks_of(dataset, self.masks)
        return {**frames, "store": self.root / f"{dataset}.h5", "masks": masks}

    def render(self, name: str, dataset: str, *outputs: Path) -> None:
        store = self.root / f"{dataset}.h5"
        figures.render(name, dataset, self.tables, store, self.masks, outputs)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made: dict[str, Study] = {}

    def get(name: str) -> Study:
        if name not in made:
            made[name] = Study(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get


def texts(figure):
    """(text, box in pixels) of every text that is seen."""
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure).draw()
    ticks = {
        label
        for axis in figure.findobj(Axis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    seen = {
        label
        for axis in figure.findobj(Axis)
        if axis.axes.get_visible()
        for tick in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    return [
        (text, text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and (text not in ticks or text in seen)
    ]


def overlaps(figure):
    """Pairs of texts that cover each other, and texts that leave the figure."""
    boxes = [(text.get_text(), box.padded(-0.6)) for text, box in texts(figure)]
    pairs = [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]
    page = figure.bbox.padded(1.5)
    outside = [a for a, x in boxes if not (page.contains(x.x0, x.y0) and page.contains(x.x1, x.y1))]
    return pairs + outside


def lines(axes):
    """{mechanism/privacy: line} of a panel."""
    return {line.get_label(): line for line in axes.get_lines() if "/" in str(line.get_label())}


# The catalogue


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
        assert "<dataset>" in caption, info.name
        assert "{" not in caption, info.name
        assert info.category in {"Data", "Training", "Privacy", "Utility", "Cost"}, info.name


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
    assert float(seconds) < 0.1
    assert heavy == "[]"


def test_drawing_never_imports_torch(study):
    made = study("one_cell")
    program = (
        "import importlib, sys\nfrom pathlib import Path\nfrom dpmedbench import figures\n"
        f"root = Path({str(made.root)!r})\n"
        "tables = {k: root / f'{k}.parquet' for k in figures.TABLES}\n"
        f"masks = [Path(p) for p in {[str(p) for p in made.masks]!r}]\n"
        "for name in figures.catalog():\n"
        "    importlib.import_module(f'dpmedbench.figures.{name}')\n"
        "for name in ('example_scans', 'test_masks', 'training_loss'):\n"
        "    figures.render(name, 'duke', tables, root / 'duke.h5', masks, [root / 'x.svg'])\n"
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
        ('"""T\n\nc"""\nORDER = 1\nNEEDS = ("cost",)\ndef draw(cost): ...', "CATEGORY"),
        (
            '"""T\n\nc"""\nCATEGORY = "A"\nORDER = "1"\nNEEDS = ("cost",)\ndef draw(cost): ...',
            "ORDER",
        ),
        ('"""T\n\nc"""\nCATEGORY = "A"\nORDER = 1\nNEEDS = ("cash",)\ndef draw(cash): ...', "cash"),
        ('"""T\n\nc"""\nCATEGORY = "A"\nORDER = 1\nNEEDS = ("cost",)\ndef draw(): ...', "NEEDS"),
        ('"""T"""\nCATEGORY = "A"\nORDER = 1\nNEEDS = ("cost",)\ndef draw(cost): ...', "caption"),
        ('"""T\n\n{sigma}"""\nCATEGORY = "A"\nORDER = 1\nNEEDS = ()\ndef draw(): ...', "sigma"),
    ],
)
def test_an_incomplete_module_is_refused(text, sentence, tmp_path):
    path = tmp_path / "drawing.py"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        figures._describe(path)
    assert "drawing.py" in str(caught.value)


def test_a_module_without_a_drawing_is_a_helper(tmp_path):
    path = tmp_path / "helper.py"
    path.write_text("def curves(): ...")
    assert figures._describe(path) is None


# What is drawn


@pytest.mark.parametrize("name", OVER_EPOCHS)
@pytest.mark.parametrize("setup", ["two_datasets", "four_models"])
def test_lines_are_the_means_of_the_table(name, setup, study):
    inputs = study(setup).inputs("duke")
    frame = inputs["history"]
    figure = figures.draw(name, **inputs)
    for model, axes in zip(frame["model"].unique(), figure.axes, strict=True):
        drawn = lines(axes)
        part = frame[(frame["model"] == model) & np.isfinite(frame[OVER_EPOCHS[name]])]
        expected = part.groupby(["mechanism", "privacy", "epoch"])[OVER_EPOCHS[name]].mean()
        settings = {f"{mechanism}/{privacy}" for mechanism, privacy, _ in expected.index}
        assert set(drawn) == settings
        assert settings
        for setting, line in drawn.items():
            values = expected.loc[tuple(setting.split("/"))]
            np.testing.assert_array_equal(line.get_xdata(), values.index)
            np.testing.assert_allclose(line.get_ydata(), values.to_numpy())


def test_bands_are_minimum_and_maximum_over_runs(study):
    inputs = study("four_models").inputs("duke")
    frame = inputs["history"]
    axes = figures.draw("validation_loss", **inputs).axes[0]
    (band,) = [c for c in axes.collections if c.get_facecolor()[0][:3].tolist() == [0, 0, 0]]
    corners = band.get_paths()[0].vertices
    part = frame[(frame["model"] == "unet") & (frame["privacy"] == "none")]
    for epoch, values in part.groupby("epoch")["val_loss"]:
        found = corners[corners[:, 0] == epoch, 1]
        assert found.min() == pytest.approx(values.min())
        assert found.max() == pytest.approx(values.max())
        assert len(values) == 2


def test_single_runs_say_so_and_have_no_band(study):
    single = figures.draw("validation_loss", **study("three_cells").inputs("duke"))
    assert "single runs" in single.get_suptitle()
    assert not single.axes[0].collections
    several = figures.draw("validation_loss", **study("four_models").inputs("duke"))
    assert "up to 2 runs" in several.get_suptitle()


def test_references_of_dice(study):
    for dataset, graders in (("duke", [0.79]), ("umn", [])):
        inputs = study("two_datasets").inputs(dataset)
        inputs["history"]["constant_val_dice"] = 0.123
        axes = figures.draw("validation_dice", **inputs).axes[0]
        levels = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
        assert levels["constant predictor"] == pytest.approx(0.123)
        assert [v for k, v in levels.items() if k == "between graders"] == graders


def test_epsilon_states_delta_and_accountant_and_is_logarithmic(study):
    figure = figures.draw("epsilon_over_epochs", **study("two_datasets").inputs("duke"))
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert "δ = 1e-5" in axes.get_ylabel()
    assert "PRV accountant" in figure.get_suptitle()
    assert "non-private training has no finite ε" in figure.get_suptitle().replace("\n", " ")
    assert not any(label.endswith("/none") for label in lines(axes))


def test_lines_that_coincide_are_all_seen(study):
    figure = figures.draw("epsilon_over_epochs", **study("no_non_private").inputs("duke"))
    patterns = {
        label.split("/")[0]: line._unscaled_dash_pattern
        for label, line in lines(figure.axes[0]).items()
    }
    (first, dashes), (second, others) = patterns.values()
    assert list(dashes) == list(others) == [4, 4]
    assert abs(first - second) == 4


def test_bars_are_means_over_epochs(study):
    inputs = study("four_models").inputs("duke")
    frame = inputs["history"]
    figure = figures.draw("mean_validation_loss", **inputs)
    setting = ["model", "mechanism", "privacy"]
    runs = frame.groupby([*setting, "fold", "seed"])["val_loss"].mean().groupby(setting)
    for model, axes in zip(frame["model"].unique(), figure.axes, strict=True):
        bars = [bars for bars in axes.containers if "/" in bars.get_label()]
        assert len(bars) == 9
        for bar in bars:
            key = (model, *bar.get_label().split("/"))
            assert bar[0].get_height() == pytest.approx(runs.mean()[key])
            whisker = bar.errorbar.lines[2][0].get_segments()[0][:, 1]
            assert whisker == pytest.approx([runs.min()[key], runs.max()[key]])


def test_cost_dots_and_ratios(study):
    inputs = study("two_datasets").inputs("duke")
    frame = inputs["cost"]
    time_axes, memory_axes = figures.draw("cost", **inputs).axes
    medians = frame.set_index(["mechanism", "privacy"])
    for label, line in lines(time_axes).items():
        row = medians.loc[tuple(label.split("/"))]
        assert line.get_xdata()[0] == pytest.approx(row["step_seconds_p50"])
    for label, line in lines(memory_axes).items():
        row = medians.loc[tuple(label.split("/"))]
        assert line.get_xdata()[0] == pytest.approx(row["peak_host_bytes"] / 2**30)
    spans = sorted(tuple(c.get_segments()[0][:, 0]) for c in time_axes.collections)
    expected = sorted(zip(frame["step_seconds_p10"], frame["step_seconds_p90"], strict=True))
    np.testing.assert_allclose(spans, expected)
    private = frame.loc[frame["privacy"] != "none", "step_seconds_p50"].mean()
    ratio = private / frame.loc[frame["privacy"] == "none", "step_seconds_p50"].item()
    assert [t.get_text() for t in time_axes.texts] == ["1×", f"{ratio:.2g}×"]
    assert "host" in memory_axes.get_xlabel()


def test_cost_prefers_gpu_memory_and_does_without_non_private(study):
    inputs = study("no_non_private").inputs("duke")
    inputs["cost"]["peak_gpu_bytes"] = 3.0 * 2**30
    figure = figures.draw("cost", **inputs)
    assert "GPU" in figure.axes[1].get_xlabel()
    assert {line.get_xdata()[0] for line in lines(figure.axes[1]).values()} == {3.0}
    assert not figure.axes[0].texts
    assert "no non-private" in figure.get_suptitle()


def test_test_dice_is_the_mean_by_class(study):
    from dpmedbench.figures.test_dice import MEAN, matrix

    frame = study("two_datasets").inputs("duke")["scores"]
    frame.loc[(frame["class"] == 8) & (frame["record"] == 0), "dice"] = math.nan
    table = matrix(frame)
    assert list(table.columns) == [*CLASSES["duke"], MEAN]
    rows = (frame["privacy"] == "sigma0.5") & (frame["predictor"] == "model")
    means = frame[rows].groupby("class")["dice"].mean()
    found = table.loc["Bookkeeping automatic mixopt, σ = 0.5"]
    np.testing.assert_allclose(found.to_numpy()[:-1], means.to_numpy())
    assert found[MEAN] == pytest.approx(means[1:].mean())
    constant = frame[frame["predictor"] == "constant"].groupby("class")["dice"].mean()
    np.testing.assert_allclose(table.loc["Constant predictor"].to_numpy()[:-1], constant.to_numpy())


def test_masks_show_each_prediction_beside_its_truth(study):
    import h5py

    from dpmedbench.figures import tiles

    made = study("three_cells")
    inputs = made.inputs("duke")
    figure = figures.draw("test_masks", **inputs)
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[:3] == ["Scan", "Truth", "Non-private"]
    assert [t.replace("\n", " ") for t in titles[3:]] == [
        "Opacus flat σ = 1",
        "Opacus per-layer σ = 1",
    ]
    with h5py.File(made.masks[1]) as file:
        truth, prediction = file["truth"][0], file["prediction"][0]
    shown = np.where(truth == 255, 255, prediction)
    picture = figure.axes[3].images[0].get_array()
    np.testing.assert_allclose(picture, tiles.colour_mask(shown, 9))
    scores = inputs["scores"]
    rows = (scores["mechanism"] == "opacus_flat") & (scores["predictor"] == "model")
    rows &= (scores["record"] == 0) & (scores["class"] > 0)
    assert figure.axes[3].texts[0].get_text() == f"{scores[rows]['dice'].mean():.2f}"


@pytest.mark.parametrize(("setup", "count"), [("no_non_private", 2 * 10), ("four_models", 2 * 38)])
def test_masks_show_every_setting_of_one_run(setup, count, study):
    assert len(figures.draw("test_masks", **study(setup).inputs("duke")).axes) == count


def test_telling_scans_come_from_different_patients():
    from dpmedbench.figures import tiles

    rich = np.arange(4, dtype=np.uint8).reshape(2, 2)
    poor = np.array([[0, 1], [0, 255]], np.uint8)
    assert tiles.telling(np.stack([poor, rich, rich, poor]), ["a", "a", "a", "b"]) == [1, 3]
    assert tiles.telling(np.stack([poor, rich]), ["a", "a"]) == [1, 0]
    assert tiles.telling(poor[None], ["a"]) == [0]


def test_an_overlay_leaves_the_background_as_it_is():
    from dpmedbench.figures import tiles

    image = np.array([[0, 100], [200, 255]], np.uint8)
    mask = np.array([[0, 1], [0, 255]], np.uint8)
    made = tiles.overlay(image, mask, 3)
    np.testing.assert_allclose(made[mask == 0], np.repeat(image[mask == 0, None] / 255, 3, axis=1))
    assert (made[0, 1] != 100 / 255).any()
    assert np.ptp(made[1, 1]) == pytest.approx(0, abs=1e-9)  # not graded: grey


# The look


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("setup", STUDIES)
def test_no_text_covers_another_or_leaves_the_page(name, setup, study):
    made = study(setup)
    for dataset in made.datasets:
        assert overlaps(figures.draw(name, **made.inputs(dataset))) == []


def test_the_check_of_overlaps_can_fail():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    figure.text(0.99, 0.1, "a long text that leaves the page")
    assert overlaps(figure) == [("one", "other"), "a long text that leaves the page"]


@pytest.mark.parametrize(
    "name", sorted({*OVER_EPOCHS, "mean_validation_loss", "cost", "test_dice"})
)
def test_axes_have_units(name, study):
    figure = figures.draw(name, **study("three_cells").inputs("duke"))
    labels = [axes.get_ylabel() for axes in figure.axes] + [a.get_xlabel() for a in figure.axes]
    with_unit = re.compile(r"\((s|GiB|0 to 1|cross-entropy \+ Dice|at δ = 1e-5)\)")
    assert any(with_unit.search(label) for label in labels)
    bare = {"", "epoch", "noise multiplier σ"}
    assert all(label in bare or with_unit.search(label) for label in labels)


def test_a_mechanism_has_one_colour_in_every_figure(study):
    from matplotlib.colors import to_hex

    from dpmedbench.figures import style

    inputs = study("three_cells").inputs("duke")
    expected = inputs["history"].attrs["colours"]
    assert expected["non_private"] == "#000000"
    assert len(set(expected.values())) == 3
    for name in [*OVER_EPOCHS, "cost"]:
        for label, line in lines(figures.draw(name, **inputs).axes[0]).items():
            colour = to_hex(line.get_color())
            assert colour == style.shade(expected[label.split("/")[0]], 0, 1), name
    for bar in figures.draw("mean_validation_loss", **inputs).axes[0].patches:
        assert to_hex(bar.get_facecolor()) in expected.values()


def test_colours_do_not_depend_on_the_dataset(tmp_path):
    cells = grid(("duke",), mechanisms=("non_private", "b", "c"))
    cells += grid(("umn",), mechanisms=("non_private", "a", "c"))
    folders = write(tmp_path / "cells", cells, epochs=1, images=1)
    tables.collect("cost", folders, tmp_path / "cost.parquet")
    duke, umn = (figures.load(tmp_path / "cost.parquet", name) for name in ("duke", "umn"))
    assert set(duke["mechanism"]) == {"non_private", "b", "c"}
    assert duke.attrs["colours"] == umn.attrs["colours"]
    assert len(set(duke.attrs["colours"].values())) == 4


def test_more_noise_is_lighter_and_levels_are_in_order():
    from matplotlib.colors import to_rgb

    from dpmedbench.figures import style

    light = [sum(to_rgb(style.shade("#0173b2", rank, 4))) for rank in range(4)]
    assert light == sorted(light)
    assert len(set(light)) == 4
    labels = ["sigma1", "none", "sigma0.5", "sigma10", "eps8", "eps200", "eps0.5"]
    expected = ["eps200", "eps8", "eps0.5", "sigma0.5", "sigma1", "sigma10"]
    assert style.noises(labels) == expected
    assert style.noise_name("sigma0.5") == "σ = 0.5"
    assert style.noise_name("eps8") == "target ε = 8"
    assert style.noise_axis(["none", "sigma1"]) == ("noise multiplier σ", ["none", "1"])
    assert style.noise_axis(["sigma1", "eps8"]) == ("noise", ["σ = 1", "target ε = 8"])


def test_axes_are_logarithmic_only_where_values_span_decades():
    from matplotlib.figure import Figure

    from dpmedbench.figures import style

    for values, expected in (
        ([1, 50], True),
        ([1, 20], False),
        ([0, 1000], False),
        ([1, math.inf, math.nan, 100], True),
        ([], False),
    ):
        axes = Figure().subplots()
        assert style.log_if_decades(axes, values) is expected
        assert axes.get_yscale() == ("log" if expected else "linear")


# What is missing


@pytest.mark.parametrize("name", [name for name in EVERY if name != "example_scans"])
def test_a_dataset_without_rows_is_explained(name, study):
    inputs = study("three_cells").inputs("umn") | {"store": None}
    figure = figures.draw(name, **inputs)
    said = " ".join(text.get_text().replace("\n", " ") for text, _ in texts(figure))
    assert "dataset umn" in said
    assert overlaps(figure) == []


def test_only_non_private_has_an_epsilon_panel_that_says_why_it_is_empty(study):
    figure = figures.draw("epsilon_over_epochs", **study("non_private_alone").inputs("duke"))
    assert "no finite epsilon: non-private" in figure.axes[0].texts[0].get_text().replace("\n", " ")


def test_a_model_that_diverged_is_explained_and_others_are_drawn(study):
    inputs = study("four_models").inputs("duke")
    frame = inputs["history"]
    frame.loc[frame["model"] == "unet", ["val_loss", "val_dice"]] = math.nan
    for name in ("validation_loss", "validation_dice", "mean_validation_loss"):
        figure = figures.draw(name, **inputs)
        assert figure.axes[0].texts, name
        assert not figure.axes[1].texts, name
        assert overlaps(figure) == [], name
    assert "values are not finite" in figure.get_suptitle().replace("\n", " ")


def test_single_missing_values_leave_the_rest(study):
    inputs = study("three_cells").inputs("duke")
    frame = inputs["history"]
    frame.loc[(frame["privacy"] == "none") & (frame["epoch"] == 2), "val_loss"] = math.nan
    figure = figures.draw("validation_loss", **inputs)
    assert lines(figure.axes[0])["non_private/none"].get_xdata().tolist() == [1, 3, 4]
    assert "1 of 12 values" in figure.get_suptitle().replace("\n", " ")


def test_one_epoch_is_a_point_with_one_tick(study):
    axes = figures.draw("training_loss", **study("one_cell").inputs("duke")).axes[0]
    (line,) = lines(axes).values()
    assert line.get_marker() == "o"
    assert axes.get_xticks().tolist() == [1]


# Files


@pytest.mark.parametrize("name", EVERY)
def test_files_are_the_same_bytes_twice(name, study, tmp_path):
    made = study("three_cells")
    for turn in ("one", "two"):
        made.render(name, "duke", tmp_path / f"{turn}.svg", tmp_path / f"{turn}.png")
    for suffix in (".svg", ".png"):
        first = (tmp_path / f"one{suffix}").read_bytes()
        assert first == (tmp_path / f"two{suffix}").read_bytes()
        assert len(first) > 2000
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "one.svg",
        "one.png",
        "two.svg",
        "two.png",
    }


def test_a_figure_of_many_cells_is_quick(study, tmp_path):
    made = study("many_settings")
    started = time.perf_counter()
    made.render("validation_dice", "duke", tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert time.perf_counter() - started < 20


def test_what_cannot_be_drawn_is_refused(study, tmp_path):
    made = study("three_cells")
    with pytest.raises(UserError, match="expected one of"):
        made.render("no_such_figure", "duke", tmp_path / "x.svg")
    with pytest.raises(UserError, match=r"\.jpeg"):
        made.render("training_loss", "duke", tmp_path / "x.jpeg")
    with pytest.raises(UserError, match="history table"):
        figures.render("training_loss", "duke", {}, None, [], [tmp_path / "x.svg"])
    with pytest.raises(UserError, match="store"):
        figures.render("example_scans", "duke", {}, None, [], [tmp_path / "x.svg"])
    with pytest.raises(UserError, match=r"masks\.h5"):
        figures._masks_of("duke", [tmp_path / "masks.h5"])
    assert not list(tmp_path.iterdir())
