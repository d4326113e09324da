"""Local differential privacy: the noise, what it promises, and who is trained on it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import made_up
import numpy as np
import pandas as pd
import pytest
import test_training
import torch
from scipy.stats import laplace as exact
from studies import overlaps
from test_config import DEFAULT, changed
from test_store import COLOUR, SPEC

from dpmedbench import cells, config, figures, outcome, perturbation, prediction, splits, store
from dpmedbench.datasets.base import Record
from dpmedbench.errors import UserError
from dpmedbench.inputs import to_input
from dpmedbench.mechanisms import capabilities
from dpmedbench.models import build
from dpmedbench.privacy import local
from dpmedbench.privacy.randomness import Seeded
from dpmedbench.training import Cell
from dpmedbench.training_data import load

MODES = list(capabilities("local").modes)
LABELS = dataclasses.replace(SPEC, task="classification")


def records(spec, count=16, size=(24, 20)):
    rng = np.random.default_rng(0)
    for k in range(count):
        image = rng.integers(0, 256, size if spec.channels == 1 else (*size, 3), np.uint8)
        target = k % 3 if spec.task == "classification" else rng.integers(0, 3, size, np.uint8)
        yield Record(image, target, f"patient {k // 2}", f"scan {k}", split="test" * (k < 4))


def written(folder, spec=LABELS, size=(24, 20)):
    """A store, as preprocessing writes it."""
    path = folder / "toy.h5"
    store.write(path, records(spec, size=size), spec, size, {"loader": "toy"})
    return path


def perturbed(source, name="noisy.h5", **noise):
    """The store with noise, as the rule makes it."""
    noise = {"dataset": "toy", "mode": "laplace", "beta": 1.0, "seed": 0} | noise
    path = source.with_name(name)
    draws = perturbation.randomness(**noise)
    perturbation.write(path, source, noise["mode"], noise["beta"], draws)
    return path


def images(path):
    with store.open_store(path) as opened:
        return opened.read(range(opened.num_records))[0].astype(int)


# The noise


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_what_is_stored_minus_the_image_is_laplace(beta, tmp_path):
    """Kolmogorov-Smirnov at the edges of the steps that the noise is rounded to."""
    source = written(tmp_path, size=(96, 96))
    noise = (images(perturbed(source, beta=beta)) - images(source)).ravel()
    steps, counts = np.unique(noise, return_counts=True)
    found = counts.cumsum() / len(noise)
    distance = np.abs(found - exact.cdf((steps + 0.5) / (local.STEPS * beta))).max()
    assert distance < 1.63 / math.sqrt(len(noise))  # one false alarm in a hundred seeds
    assert noise.std() / local.STEPS == pytest.approx(math.sqrt(2) * beta, rel=0.02)


def test_every_number_has_noise_of_its_own(tmp_path):
    """No correlation between neighbours, channels or images."""
    source = written(tmp_path, COLOUR, size=(32, 32))
    noise = images(perturbed(source)) - images(source)
    for one, other in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_no_value_stored_tells_more_of_a_pixel_than_epsilon(beta):
    """All pairs of pixel values, all values that can be stored, the clipped ones among them."""
    limits = np.iinfo(np.int16)
    values, pixels = np.arange(limits.min, limits.max + 1), np.arange(0, 256, 5)
    edges = (np.concatenate([values, [limits.max + 1]]) - 0.5)[:, None] - pixels
    edges[0], edges[-1] = -np.inf, np.inf
    scale = local.STEPS * beta
    low, high = edges[:-1], edges[1:]
    mirrored = low > 0  # where the distribution function has no digits left
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    chances = exact.cdf(high, scale=scale) - exact.cdf(low, scale=scale)
    worst = (chances.max(1) / chances.min(1)).max()
    promised = local.promise("laplace", beta, 1)["epsilon_per_pixel"]
    assert math.log(worst) <= promised * (1 + 1e-9)
    assert math.log(worst) > 0.99 * promised


def test_the_scalar_leaves_every_difference_as_it_was(tmp_path):
    source = written(tmp_path)
    noise = images(perturbed(source, mode="scalar_per_image", beta=2.0)) - images(source)
    assert (noise == noise[:, :1, :1]).all()
    assert len(set(noise[:, 0, 0])) == len(noise)


def test_values_beyond_what_is_stored_are_clipped():
    largest = torch.tensor([0.0] * 4 + [1 - 2**-53] * 4, dtype=torch.float64)
    draws = SimpleNamespace(uniform=lambda n: largest[:n])
    image = np.full((2, 2), 255, np.uint8)
    assert (local.perturbed(image, "laplace", 1e3, draws) == 32767).all()


def test_the_laplace_numbers_are_differences_of_exponentials():
    found = local.laplace((50_000,), Seeded(0))
    assert np.quantile(found, [0.25, 0.5, 0.75]) == pytest.approx(
        exact.ppf([0.25, 0.5, 0.75]), abs=0.03
    )


# Once an image


def test_the_noise_is_drawn_once_and_belongs_to_its_name(tmp_path):
    source = written(tmp_path)
    ways = [{}, {"seed": 1}, {"beta": 2.0}, {"mode": "scalar_per_image"}, {"dataset": "other"}]
    drawn = [images(perturbed(source, f"{n}.h5", **way)) for n, way in enumerate(ways)]
    assert (tmp_path / "0.h5").read_bytes() == perturbed(source, "again.h5").read_bytes()
    noise = [found - images(source) for found in drawn]
    for one, other in itertools.combinations(noise, 2):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5
    # of n and 2 n on one image anybody computes it
    assert abs(np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1]) < 4 / math.sqrt(noise[0].size)


def test_secure_noise_repeats_nothing_and_says_so(tmp_path):
    pytest.importorskip("randomgen")
    source = written(tmp_path)
    paths = [perturbed(source, name, seed=None) for name in ("one.h5", "two.h5")]
    assert (images(paths[0]) != images(paths[1])).mean() > 0.9
    with store.open_store(paths[0]) as opened:
        assert "secure" in opened.provenance["perturbation"]["randomness"]


@pytest.mark.parametrize("spec", [SPEC, LABELS, COLOUR], ids=["masks", "labels", "colour"])
def test_all_but_the_images_is_as_it_was(spec, tmp_path):
    source = written(tmp_path, spec)
    with store.open_store(source) as clean, store.open_store(perturbed(source)) as noisy:
        everything = range(clean.num_records)
        np.testing.assert_array_equal(clean.read(everything)[1], noisy.read(everything)[1])
        for name in ("patients", "sources", "official"):
            np.testing.assert_array_equal(getattr(clean, name), getattr(noisy, name))
        same = ("name", "task", "classes", "channels", "num_records", "image_size")
        assert [getattr(clean, n) for n in same] == [getattr(noisy, n) for n in same]
        assert noisy.digest != clean.digest
        assert noisy.provenance["perturbation"]["of"] == clean.digest
        found = noisy.read([0])[0]
    assert found.dtype == np.int16
    assert to_input(found).shape == (1, spec.channels, 24, 20)
    assert float(to_input(found).abs().max()) > 1


# Who is trained on it


@pytest.fixture
def fold(tmp_path):
    """(store, split file, store with noise)."""
    source = written(tmp_path)
    with store.open_store(source) as opened:
        frame = splits.make(
            opened.patients, opened.sources, opened.official, method="official",
            ratios=(0.5, 0.5, 0.0), lists=None, folds=1, seed=0,
        )  # fmt: skip
        splits.write(frame, tmp_path / "splits.csv", opened)
    return source, tmp_path / "splits.csv", perturbed(source, beta=2.0)


def settings(**noise):
    """The settings of a local cell, or of an ordinary one where there is no noise."""
    ways = {"engine": "local", "mode": noise["mode"]} if noise else {"engine": "none"}
    found = test_training.settings(ways, epochs=2)
    found["model"] = {"network": "resnet18", "features": [4, 8], "num_groups": 2}
    found["mechanism"] |= {"beta": noise["beta"]} if noise else {}
    found["identity"] |= {"noise_multiplier": None}
    return found


def test_training_and_validation_are_noisy_and_the_test_is_both(fold):
    source, split_file, noisy = fold
    plain, data = load(source, split_file, 0), load(source, split_file, 0, noisy)
    assert (plain.scored, data.scored) == (("val", "test"), ("val", "test", "test_noisy"))
    for part, kind in (("train", np.int16), ("val", np.int16), ("test", np.uint8)):
        assert getattr(data, part)[0].dtype == kind
        np.testing.assert_array_equal(getattr(data, part)[1], getattr(plain, part)[1])
    np.testing.assert_array_equal(data.test[0], plain.test[0])
    assert data.test_noisy[0].dtype == np.int16
    assert data.digest != plain.digest


def test_noise_on_other_data_is_refused(fold, tmp_path):
    source, split_file, _ = fold
    (tmp_path / "other").mkdir()
    other = perturbed(written(tmp_path / "other", size=(16, 16)))
    with pytest.raises(UserError, match=r"found the noisy images of other data, expected those"):
        load(source, split_file, 0, other)


LAPLACE_2, LAPLACE_1 = ({"mode": "laplace", "beta": beta} for beta in (2.0, 1.0))
SCALAR_2 = {"mode": "scalar_per_image", "beta": 2.0}


@pytest.mark.parametrize(
    ("wanted", "noisy"), [(LAPLACE_1, True), (SCALAR_2, True), (LAPLACE_2, False), ({}, True)]
)
def test_a_cell_has_the_noise_that_it_is_named_after(wanted, noisy, fold, tmp_path):
    source, split_file, with_noise = fold
    data = load(source, split_file, 0, with_noise if noisy else None)
    with pytest.raises(UserError, match=r"training images: found .*, expected .*; delete the file"):
        Cell(settings(**wanted), test_training.EXECUTION, data, tmp_path)


def test_a_local_cell_trains_and_records_what_it_promises(fold, tmp_path):
    source, split_file, noisy = fold
    noisy_data = load(source, split_file, 0, noisy)
    cell = Cell(settings(**LAPLACE_2), test_training.EXECUTION, noisy_data, tmp_path / "state")
    cell.run()
    row = outcome.history(cell)[-1]
    assert {"test_accuracy", "test_noisy_accuracy", "val_accuracy"} <= set(row)
    assert row["epsilon"] == math.inf
    found = outcome.privacy(cell)
    assert (found["beta"], found["epsilon_per_pixel"]) == (2.0, 0.5)
    assert found["epsilon_per_image"] == 24 * 20 / 2.0
    assert "labels are not protected" in found["note"]
    assert (found["epsilon"], found["noise_additions"]) == (None, 0)


def test_the_scalar_is_never_called_private():
    promise = local.promise("scalar_per_image", 4.0, 100)
    assert promise["epsilon_per_pixel"] is promise["epsilon_per_image"] is None
    assert promise["note"].startswith("no privacy")
    assert not capabilities("local").private


def test_the_epsilon_of_an_image_counts_its_channels():
    assert local.promise("laplace", 4.0, 256 * 256 * 3)["epsilon_per_image"] == 49_152


@pytest.mark.parametrize("spec", [SPEC, LABELS], ids=lambda spec: spec.task)
def test_the_test_set_is_scored_with_and_without_noise(spec, tmp_path):
    source = written(tmp_path, spec, size=(32, 32))
    noisy = perturbed(source, beta=4.0)
    outputs = SimpleNamespace(**{n: tmp_path / n for n in ("masks", "predictions", "scores")})
    torch.manual_seed(0)
    network = {"segmentation": "unet", "classification": "resnet18"}[spec.task]
    model = build(network, 1, 3, features=(4, 8), num_groups=2)
    history = made_up.history(made_up.grid(("aptos",), ("resnet18",))[1], 2)
    with store.open_store(source) as clean, store.open_store(noisy) as with_noise:
        parts = {"train": np.arange(4, 16), "test": np.arange(4)}
        prediction.load(spec.task).write(outputs, clean, parts, model, history, with_noise)
        everything = pd.read_parquet(outputs.scores)
        prediction.load(spec.task).write(outputs, clean, parts, model, history)
    plain = pd.read_parquet(outputs.scores)
    own = everything["predictor"] == "model_on_noisy"
    pd.testing.assert_frame_equal(everything[~own].reset_index(drop=True), plain)
    of_model = plain[plain["predictor"] == "model"]
    assert own.sum() == len(of_model)
    value = "dice" if spec.task == "segmentation" else "value"
    assert not np.array_equal(everything.loc[own, value], of_model[value], equal_nan=True)


# The configuration


LOCAL = [("mechanisms.noisy", {"engine": "local"}), ("grids.0.mechanisms", ["noisy"])]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (LOCAL, r"grids\[0\]: mechanism noisy needs beta"),
        (
            [("grids.0.beta", [1])],
            r"grids\[0\].beta: found \[1.0\], but none of its mechanisms is local; leave it out or",
        ),
        ([*LOCAL, ("grids.0.beta", [0])], r"grids.0.beta.0: found 0, input should be greater"),
        (
            [("mechanisms.noisy", {"engine": "local", "clipping": "abadi"})],
            r"engine local in mode laplace cannot do clipping abadi",
        ),
        (
            [("mechanisms.noisy", {"engine": "local", "mode": "gauss"})],
            r"mode is 'gauss', allowed for engine local are \['laplace', 'scalar_per_image'\]",
        ),
    ],
)
def test_mistakes_are_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        config.load(changed(*changes))


def test_cells_that_agree_in_their_noise_share_their_images():
    changes = [
        ("mechanisms.noisy", {"engine": "local"}),
        ("mechanisms.noisy_slow", {"engine": "local", "learning_rate": 1e-4}),
        ("mechanisms.scalar", {"engine": "local", "mode": "scalar_per_image"}),
        ("grids", DEFAULT["grids"][:1]),
        ("grids.0.mechanisms", ["non_private", "noisy", "noisy_slow", "scalar"]),
        ("grids.0.beta", [1, 2]),
        ("grids.0.seeds", [0, 1]),
    ]
    study = config.load(changed(*changes))
    found = {cell.folder: cells.noise(study, cell) for cell in cells.cells(study)}
    noisy = {json.dumps(noise) for noise in found.values() if noise}
    assert len(noisy) == 2 * 2
    labels = {cell.privacy for cell in cells.cells(study) if cell.beta}
    assert labels == {"beta1", "beta2"}
    cell = next(cell for cell in cells.cells(study) if cell.beta == 2)
    assert cells.settings(study, cell)["mechanism"]["beta"] == 2
    assert cells.noise(study, cell)["seed"] == study.datasets[cell.dataset].noise_seed
    secure = config.load(changed(*changes, ("privacy.secure_rng", True)))
    assert cells.noise(secure, cell)["seed"] is None


# The figure


def test_the_picture_has_a_tile_for_each_noise_and_says_its_epsilon(tmp_path):
    source = written(tmp_path)
    noises = list(itertools.product(MODES, (1.0, 4.0)))
    paths = [
        perturbed(source, f"{n}.h5", mode=mode, beta=beta) for n, (mode, beta) in enumerate(noises)
    ]
    figure = figures.draw("perturbed_images", store=source, perturbed=paths)
    assert len(figure.axes) == 2 * (len(noises) + len(MODES))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles.count("β = 4: ε 0.25 a pixel,\n120 an image") == 1
    assert titles.count("β = 4: no ε") == 1
    assert overlaps(figure) == []
    outputs = [tmp_path / f"{name}.svg" for name in "ab"]
    for output in outputs:
        figures.render("perturbed_images", "toy", {"store": source, "perturbed": paths}, [output])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_stretching_undoes_the_scalar(tmp_path):
    """What the picture shows of it: the image, as it was."""
    from dpmedbench.figures.perturbed_images import stretched

    source = written(tmp_path)
    shifted = images(perturbed(source, mode="scalar_per_image", beta=4.0))
    np.testing.assert_allclose(stretched(shifted[0]), stretched(images(source)[0]), atol=1)
