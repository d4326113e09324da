"""The workflow with local mechanisms beside an ordinary one and DP-SGD, on a phantom."""

import pandas as pd
import pytest
from checkout import CHEST, TINY, after_a_run

from dpmedbench.store import open_store

pytestmark = pytest.mark.workflow

MECHANISMS = {
    "non_private": {"engine": "none"},
    "laplace": {"engine": "local"},
    "laplace_slow": {"engine": "local", "learning_rate": 1e-4},
    "scalar": {"engine": "local", "mode": "scalar_per_image"},
    "opacus_flat": TINY["mechanisms"]["opacus_flat"],
}
GRID = CHEST["grids"][0] | {"mechanisms": list(MECHANISMS), "beta": [2.0]}
LOCAL = TINY | CHEST | {
    "mechanisms": MECHANISMS,
    "grids": [GRID],
    "training": TINY["training"] | {"epochs": 2},
    "figures": ["perturbed_images", "epsilon_over_epochs", "confusion_matrix"],
}  # fmt: skip
LAPLACE, SCALAR = (f"phantom_chest.{mode}.beta2.h5" for mode in ("laplace", "scalar_per_image"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The study after one whole run."""
    return after_a_run(tmp_path_factory.mktemp("checkout"), LOCAL)


@pytest.fixture(scope="module")
def table(checkout):
    """A collected table, its cells by mechanism."""
    folder = checkout.folder / "results" / "tiny" / "tables"
    return lambda name: pd.read_parquet(folder / f"{name}.parquet").set_index("mechanism")


def test_noise_is_drawn_once_for_all_cells_that_share_it(checkout):
    data = checkout.folder / "results" / "tiny" / "data"
    assert {path.name for path in data.glob("*.h5")} == {"phantom_chest.h5", LAPLACE, SCALAR}
    cells = checkout.folder / "results" / "tiny" / "cells" / "phantom_chest" / "resnet18"
    assert {path.name for path in (cells / "laplace_slow").iterdir()} == {"beta2"}
    assert {path.name for path in (cells / "opacus_flat").iterdir()} == {"sigma1"}
    with open_store(data / LAPLACE) as noisy:
        assert noisy.provenance["perturbation"]["randomness"] == "seeded (research mode)"


def test_both_scores_and_the_promise_are_on_record(table):
    history, scores, privacy = table("history"), table("scores"), table("privacy")
    local = ["laplace", "laplace_slow", "scalar"]
    assert history.loc[local, ["test_accuracy", "test_noisy_accuracy"]].notna().all(axis=None)
    assert history.loc[["non_private", "opacus_flat"], "test_noisy_accuracy"].isna().all()
    on_noisy = scores[scores["predictor"] == "model_on_noisy"]
    assert set(on_noisy.index) == set(local)
    promised = privacy[["beta", "epsilon_per_pixel", "epsilon_per_image"]]
    assert promised.loc["laplace"].tolist() == [2.0, 0.5, 512.0]
    assert promised.loc["scalar"].tolist() == [2.0, float("inf"), float("inf")]
    assert privacy.loc["scalar", "note"].startswith("no privacy")
    assert (privacy.loc[local, "epsilon"] == float("inf")).all()
    assert 0 < privacy.loc["opacus_flat", "epsilon"] < float("inf")


def test_the_report_shows_the_images_and_says_what_is_promised(checkout):
    report = (checkout.folder / "results" / "tiny" / "report.html").read_text()
    assert "Images before and after local perturbation" in report
    assert "Local mechanisms train and validate on images with noise" in report


def test_a_second_run_does_nothing(checkout):
    assert checkout.would_run() == {}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"grids": [GRID | {"beta": [2.0, 4.0]}]}, {"perturb": 2, "train": 3, "classify": 3}),
        (
            {"datasets": {"phantom_chest": CHEST["datasets"]["phantom_chest"] | {"noise_seed": 1}}},
            {"perturb": 2, "train": 3, "classify": 3},
        ),
        ({"training": LOCAL["training"] | {"epochs": 3}}, {"train": 5, "classify": 5}),
    ],
)
def test_only_what_depends_on_the_noise_runs_again(checkout, change, again):
    checkout.write(LOCAL | change)
    planned = checkout.would_run()
    checkout.write(LOCAL)
    steps = ("preprocess", "split", "perturb", "train", "classify")
    assert {step: planned[step] for step in steps if step in planned} == again


def test_a_study_without_local_mechanisms_has_no_noise(checkout):
    grid = GRID | {"mechanisms": ["non_private"], "beta": []}
    checkout.write(LOCAL | {"grids": [grid], "study": "plain", "figures": None})
    planned = checkout.would_run()
    checkout.write(LOCAL)
    assert "perturb" not in planned
    assert any(rule.startswith("figures_") for rule in planned)
