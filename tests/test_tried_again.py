"""A finished study after a failure, a deletion or a change of its raw data: what runs again."""

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from checkout import TINY, Checkout, after_a_run

from dpmedbench.datasets import duke

pytestmark = pytest.mark.workflow

CELL = "phantom_duke/unet/non_private/none/fold0/seed0"
DATASET = TINY["datasets"]["phantom_duke"] | {"source": "path", "path": "mine"}
STUDY = TINY | {
    "datasets": {"phantom_duke": DATASET},
    "training": TINY["training"] | {"epochs": 1},
    "figures": ["time_per_epoch"],
    "grids": [TINY["grids"][0] | {"mechanisms": ["non_private"]}],
}
NO_TORCH = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else found(name, *more)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study, with its raw data in a folder of a user, after one whole run."""
    folder = tmp_path_factory.mktemp("finished")
    duke.write_phantom(folder / "mine", 4, 2, (64, 64))
    return after_a_run(folder, STUDY).folder


@pytest.fixture
def there(finished, tmp_path):
    """A copy of it, to be spoilt."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    copy = Checkout.__new__(Checkout)
    copy.folder = tmp_path / "copy"
    return copy


def ran(said):
    """The rules of the jobs that a run began, or would."""
    return set(re.findall(r"^(?:local)?rule (\w+):", said, re.M))


def test_a_cell_that_failed_is_tried_again_by_the_same_command(there):
    """Snakemake keeps on record what a failed job was to run with, and finds nothing to be done."""
    state = there.folder / "state" / "tiny" / CELL
    shutil.rmtree(state)
    state.touch()  # a file where the cell wants to keep its checkpoints
    there.write(STUDY | {"mechanisms": {"non_private": {"engine": "none", "learning_rate": 0.02}}})
    for _ in range(2):
        code, said = there.run()
        assert code == 1, said
        assert "train" in ran(said)
        assert "report" not in ran(said)
    state.unlink()
    code, said = there.run()
    assert code == 0, said
    assert {"train", "segment", "report"} <= ran(said)


def test_a_split_that_failed_is_tried_again_and_the_file_kept(there):
    path = there.folder / "results" / "tiny" / "data" / "phantom_duke.splits.csv"
    before = path.read_text()
    lists = {"train": ["Subject_01"], "val": ["Subject_02"], "test": ["nobody"]}
    split = {"split": {"method": "lists", "lists": lists}}
    there.write(STUDY | {"datasets": {"phantom_duke": DATASET | split}})
    for _ in range(2):
        code, said = there.run()
        assert code == 1, said
        assert "split lists.test: found 'nobody'" in said
        assert path.read_text() == before
    assert "report" not in ran(said)


@pytest.mark.parametrize(
    ("deleted", "rule"),
    [
        ("data/phantom_duke.splits.csv", "split"),
        ("data/phantom_duke.h5", "preprocess"),
        (f"cells/{CELL}/model.safetensors", "train"),
        (f"cells/{CELL}/scores.parquet", "segment"),
        ("tables/claims.parquet", "derived_table"),
        (f"cells/{CELL}/manifest.json", "train"),
        (f"cells/{CELL}/masks.h5", "segment"),
        ("figures/phantom_duke/time_per_epoch.svg", "figures_phantom_duke"),
        ("figures/phantom_duke/time_per_epoch.png", "figures_phantom_duke"),
        ("pages/results.tex", "page"),
    ],
)
def test_what_is_deleted_is_made_anew(there, deleted, rule):
    (there.folder / "results" / "tiny" / deleted).unlink()
    assert there.would_run()[rule] == 1


def test_of_the_raw_folder_only_what_is_read_counts(there):
    raw = there.folder / "mine"
    for name in (".DS_Store", ".~lock.manifest.csv#", "Thumbs.db"):
        (raw / name).touch()
        (raw / name).unlink()
    (raw / "desktop.ini").touch()
    assert set(there.would_run()) <= {"report"}  # which names the folder of the study
    file = next(raw.rglob("*.mat"))
    file.write_bytes(file.read_bytes())
    assert there.would_run()["preprocess"] == 1


def test_the_results_alone_make_a_report_of_an_unfinished_study(there, tmp_path):
    (there.folder / "mine").rename(tmp_path / "elsewhere")
    code, said = there.run("--dry-run")
    assert code == 1
    assert "where there is nothing" in said
    code, said = there.run("--config", "unfinished=true")
    assert code == 0, said
    assert "left out" not in said
    splits = there.folder / "results" / "tiny" / "data" / "phantom_duke.splits.csv"
    os.utime(splits)  # as a copy has it
    assert there.run("--dry-run", "--config", "unfinished=true")[0] == 0
    splits.write_text(splits.read_text() + "#\n")
    code, said = there.run("--dry-run", "--config", "unfinished=true")
    assert code == 1
    assert "trained before its data or splits changed" in said


def test_cells_of_other_settings_are_not_kept_where_no_record_tells_of_them(there):
    shutil.rmtree(there.folder / ".snakemake")  # as in results/ of another machine
    longer = STUDY["training"] | {"checkpoint_seconds": 5}
    there.write(STUDY | {"training": longer})
    assert there.would_run() == {}
    grid = STUDY["grids"][0] | {"seeds": [0, 1]}
    there.write(STUDY | {"training": longer | {"epochs": 2}, "grids": [grid]})
    code, said = there.run("results/tiny/tables/cost.parquet")
    assert code == 1
    assert re.search(rf"{CELL}: trained with other .* found training.epochs 1, expected 2; ", said)
    assert "Traceback" not in said
    assert ran(said) == set()
    shutil.rmtree(there.folder / "results" / "tiny" / "cells")
    assert there.would_run()["train"] == 2


def test_a_cell_of_settings_that_a_job_read_later_is_not_collected(there):
    """On a cluster each job reads the configuration; on record are the settings at the start."""
    results = there.folder / "results" / "tiny"
    manifest = results / "cells" / CELL / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"epochs": 1', '"epochs": 2'))
    (results / "tables" / "cost.parquet").unlink()
    code, said = there.run("results/tiny/tables/cost.parquet")
    assert code == 1
    assert "found training.epochs 2, expected 1; was the configuration edited" in said
    assert "Traceback" not in said


def test_a_cell_that_snakemake_left_in_training_is_trained_with_the_new_settings(there):
    """Its job went on alone and wrote the files, of which there is no record but a mark."""
    shutil.rmtree(there.folder / ".snakemake" / "metadata")
    marks = there.folder / ".snakemake" / "incomplete"
    manifest = f"results/tiny/cells/{CELL}/manifest.json"
    (marks / base64.urlsafe_b64encode(manifest.encode()).decode()).write_text("{}")
    there.write(STUDY | {"training": STUDY["training"] | {"epochs": 2}})
    assert there.would_run()["train"] == 1


def test_the_profile_of_a_site_is_not_that_of_the_report(there, tmp_path):
    """Its executor is not installed beside the Snakemake that makes the report."""
    (tmp_path / "config.yaml").write_text("executor: nowhere\n")
    options = ["--forcerun", "report", "--profile", "none"]
    code, said = there.run(*options, SNAKEMAKE_PROFILE=str(tmp_path))
    assert code == 0, said
    assert "report" in ran(said)


def test_results_are_kept_where_no_torch_could_make_them_again(there, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    for dry in ([], ["--dry-run"]):
        code, said = there.run(*dry, PYTHONPATH=str(tmp_path))
        assert code == 1
        assert re.search("torch: found none .* --sdm conda", said)
        assert "Traceback" not in said
    assert (there.folder / "results" / "tiny" / "cells" / CELL / "model.safetensors").exists()
    options = ["--dry-run", "--config", "unfinished=true"]
    assert there.run(*options, PYTHONPATH=str(tmp_path))[0] == 0


def test_the_command_for_a_report_works_from_another_folder(there, tmp_path):
    (there.folder / "state").rename(tmp_path / "kept")
    (there.folder / "state").touch()
    grid = {"grids": [STUDY["grids"][0] | {"seeds": [0, 1]}]}
    there.write(STUDY | grid)
    place = ["--snakefile", "copy/Snakefile", "--directory", "copy"]
    given = [*place, "--configfile", "copy/study.yaml", "--resources", "gpu=1", "--cores", "2"]

    def run(options):
        command = [sys.executable, "-m", "snakemake", *options]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout

    code, said = run(given)
    assert code == 1, said
    again = re.search(r"^For a report of .*: snakemake (.*)$", said, re.M)[1]
    code, said = run([*shlex.split(again), "--dry-run"])
    assert code == 0, said
    assert "report" in ran(said)
