"""Pictures of scans: colours of classes, tiles, predicted masks, the picture of one cell."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest
from made_up import grid, write_masks
from matplotlib.colors import to_rgb
from studies import drawn, overlaps, study

from dpmedbench import figures
from dpmedbench.datasets.base import IGNORE
from dpmedbench.figures import classes, palette, scans, style, tiles

# How a reader without red, green or blue cones sees linear RGB (Machado et al. 2009, severity 1).
VISION = {
    "full": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


def differences(colours, vision):
    """CIELAB distances (n, n) between colours, (n, 3) in [0, 1] or names, for a kind of vision."""
    colours = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    xyz = seen @ np.transpose(XYZ) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29).T
    lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=-1)
    return np.linalg.norm(lab[:, None] - lab, axis=-1)


@pytest.fixture
def masks(tmp_path):
    """masks.h5 of a cell: nine classes, a strip that is not graded, three patients."""
    path = tmp_path / "masks.h5"
    write_masks(path, grid()[1], 5, (24, 32))
    return path


def test_a_known_difference_of_colours():
    # CIELAB of sRGB red is (53.24, 80.09, 67.20), of blue (32.30, 79.19, -107.86).
    found = differences(["#ff0000", "#0000ff", "#000000"], "full")
    expected = np.linalg.norm(np.array([53.24, 80.09, 67.20]) - [32.30, 79.19, -107.86])
    assert found[0, 1] == pytest.approx(expected, abs=0.1)
    assert found[0, 2] == pytest.approx(np.linalg.norm([53.24, 80.09, 67.20]), abs=0.1)
    assert differences(["#ff0000", "#7f6a00"], "protan")[0, 1] < 40  # red and olive look alike


@pytest.mark.parametrize("vision", VISION)
def test_every_reader_tells_classes_apart(vision):
    used = [*classes.colours(9), style.VOID]
    apart = differences(used, vision)[np.triu_indices(10, 1)]
    assert apart.min() > (28 if vision == "full" else 16)
    layers = differences(used[1:8], vision)
    assert np.diag(layers, 1).min() > 35
    # Over a scan, dark or bright, and as errors on a pale one.
    for gray in (0, 120, 220):
        mask = np.arange(1, 9)[None].astype(np.uint8)
        laid = classes.overlay(np.full((1, 8), gray, np.uint8), mask, 9)[0]
        assert differences(laid, vision)[np.triu_indices(8, 1)].min() > 9
    errors = [scans.MISSED, scans.ADDED, scans.CONFUSED]
    pale = [str(level) for level in np.linspace(0.5, 1, 6)]
    found = differences([*errors, *pale], vision)
    assert found[:3, 3:].min() > 18
    assert found[:3, :3][np.triu_indices(3, 1)].min() > 18


@pytest.mark.parametrize("vision", VISION)
def test_every_reader_tells_fourteen_mechanisms_apart(vision):
    """As well as those of the palette alone, which are 11.3 apart where red cones lack."""
    given = palette.assign({"plain": False} | {f"m{number}": True for number in range(14)})
    assert differences(given.values(), vision)[np.triu_indices(15, 1)].min() > 11


@pytest.mark.parametrize("count", [2, 3, 9, 10, 30])
def test_each_class_has_its_colour_and_the_background_is_white(count):
    made = classes.colours(count)
    assert len({*made, style.VOID}) == count + 1
    assert made[0] == "#ffffff"
    mask = np.array([[0, count - 1, IGNORE]], np.uint8)
    expected = [to_rgb(colour) for colour in (made[0], made[-1], style.VOID)]
    np.testing.assert_allclose(classes.paint(mask, count)[0], expected)


def test_fluid_looks_the_same_with_and_without_layers():
    assert classes.colours(2)[-1] == classes.colours(9)[-1]


def test_masks_show_each_prediction_beside_its_truth():
    made = study("three_cells")
    figure = drawn("three_cells", "test_masks")
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
    np.testing.assert_allclose(picture, classes.paint(shown, 9))
    scores = made.inputs()["scores"]
    rows = (scores["mechanism"] == "opacus_flat") & (scores["predictor"] == "model")
    rows &= (scores["record"] == 0) & (scores["class"] > 0)
    assert figure.axes[3].texts[0].get_text() == f"{scores[rows]['dice'].mean():.2f}"


@pytest.mark.parametrize(("setup", "count"), [("no_non_private", 2 * 10), ("four_models", 2 * 22)])
def test_masks_show_every_setting_of_one_run(setup, count):
    assert len(drawn(setup, "test_masks").axes) == count


def test_telling_scans_come_from_different_patients():
    rich = np.arange(4, dtype=np.uint8).reshape(2, 2)
    poor = np.array([[0, 1], [0, 255]], np.uint8)
    assert tiles.telling(np.stack([poor, rich, rich, poor]), ["a", "a", "a", "b"]) == [1, 3]
    assert tiles.telling(np.stack([poor, rich]), ["a", "a"]) == [1, 0]
    assert tiles.telling(poor[None], ["a"]) == [0]


def test_an_overlay_leaves_the_background_as_it_is():
    image = np.array([[0, 100], [200, 255]], np.uint8)
    mask = np.array([[0, 1], [0, 255]], np.uint8)
    made = classes.overlay(image, mask, 3)
    np.testing.assert_allclose(made[mask == 0], np.repeat(image[mask == 0, None] / 255, 3, axis=1))
    assert (made[0, 1] != 100 / 255).any()
    assert np.ptp(made[1, 1]) == pytest.approx(0, abs=1e-9)  # not graded: grey


# The picture of one cell


def test_a_row_is_a_scan_and_its_dice(masks):
    figure = scans.picture(masks, count=3)
    assert len(figure.axes) == 12
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["Scan", "Truth", "Prediction", "Disagreement"]
    with h5py.File(masks) as file:
        sources = file["source"].asstr()[:]
        chosen = scans.spread(file["patient"].asstr()[:], 3)
        image, truth, prediction = (
            file[kind][chosen[0]] for kind in ("images", "truth", "prediction")
        )
    shown = [axes.images[0].get_array() for axes in figure.axes[:4]]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_allclose(shown[1], classes.paint(truth, 9))
    np.testing.assert_allclose(shown[2], classes.paint(prediction, 9))
    np.testing.assert_allclose(shown[3], scans.disagreement(image, truth, prediction))
    each = []
    for label in range(1, 9):
        both = ((truth == label) & (prediction == label)).sum()
        total = (truth == label).sum() + ((prediction == label) & (truth != IGNORE)).sum()
        each += [2 * both / total] if total else []
    expected = "\n".join([*sources[chosen[0]].split("/"), f"Dice {np.mean(each):.2f}"])
    assert figure.texts[0].get_text() == expected


def test_what_is_not_graded_is_hatched_except_in_the_prediction(masks):
    figure = scans.picture(masks, count=2)
    assert [bool(axes.collections) for axes in figure.axes] == [False, True, False, True] * 2
    (corners,) = (path.vertices for path in figure.axes[1].collections[0].get_paths())
    assert (corners[:, 0].max(), corners[:, 1].max()) == (pytest.approx(1.5), pytest.approx(24))
    assert figure.axes[1].get_xlim() == (-0.5, 31.5)


@pytest.mark.parametrize(("names", "errors"), [(("no", "yes"), 2), (("no", "a", "b"), 3)])
def test_the_legend_names_classes_and_errors(names, errors, masks):
    with h5py.File(masks, "a") as file:
        file["truth"][:] = file["truth"][:] % 2
        file["prediction"][:] = file["prediction"][:] % 2
        file.attrs["classes"] = f"{list(names)}".replace("'", '"')
    said = [[t.get_text() for t in made.get_texts()] for made in scans.picture(masks).legends]
    assert said[0] == [*names]
    assert said[1] == ["Disagreement:", "missed", "added", "another class"][: errors + 1]


@pytest.mark.parametrize("size", [(24, 32), (12, 96), (96, 12)])
@pytest.mark.parametrize("count", [1, 4])
def test_nothing_in_the_picture_covers_another(count, size, tmp_path):
    write_masks(tmp_path / "masks.h5", grid()[1], 5, size)
    with h5py.File(tmp_path / "masks.h5", "a") as file:
        file["source"][0] = "A patient with a long name/and a scan with a longer one"
        file.attrs["classes"] = str([f"a class with a name {i}" for i in range(14)]).replace(
            "'", '"'
        )
    figure = scans.picture(tmp_path / "masks.h5", count)
    assert overlaps(figure) == []
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [item.get_window_extent() for item in (*figure.legends, *figure.texts)]
    for one, other in itertools.combinations([box.padded(-0.5) for box in boxes], 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert figure.bbox.padded(1).contains(*box.min)
        assert figure.bbox.padded(1).contains(*box.max)


def test_a_picture_is_the_same_bytes_twice(masks, tmp_path):
    for turn in ("one.png", "two.png"):
        figures.save(scans.picture(masks, 1), tmp_path / turn)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_picture_spreads_over_patients():
    patients = np.array(["a"] * 5 + ["b"] * 3 + ["c"])
    assert scans.spread(patients, 3) == [2, 6, 8]
    assert len(set(scans.spread(patients, 6))) == 6
    assert scans.spread(patients, 100) == list(range(9))


def test_a_disagreement_names_each_mistake():
    truth = np.array([[1, 0, 1, 255, 1]], np.uint8)
    prediction = np.array([[0, 1, 2, 1, 1]], np.uint8)
    shown = scans.disagreement(np.full((1, 5), 255, np.uint8), truth, prediction)[0]
    wrong = (scans.MISSED, scans.ADDED, scans.CONFUSED, style.VOID)
    np.testing.assert_allclose(shown, [*map(to_rgb, wrong), (1, 1, 1)])
