"""The workflow, end to end on phantoms: what runs, what runs again, what a person is told."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import browser
import pandas as pd
import pytest
import report_tour
from checkout import ROOT, TINY, Checkout, after_a_run
from safetensors import safe_open

from dpmedbench.datasets import custom
from dpmedbench.store import open_store

pytestmark = pytest.mark.workflow

CELLS = (
    "phantom_duke/unet/non_private/none/fold0/seed0",
    "phantom_duke/unet/opacus_flat/sigma1/fold0/seed0",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The study after one whole run."""
    return after_a_run(tmp_path_factory.mktemp("checkout"))


def test_every_stage_leaves_its_files(checkout):
    results = checkout.folder / "results"
    assert (results / "tiny" / "data" / "phantom_duke.h5").exists()
    for cell in CELLS:
        found = {path.name for path in (results / "tiny" / "cells" / cell).iterdir()}
        assert found == {
            "model.safetensors",
            "history.parquet",
            "privacy.json",
            "cost.json",
            "manifest.json",
            "masks.h5",
            "scores.parquet",
            "scans.png",
        }
    history = pd.read_parquet(results / "tiny" / "tables" / "history.parquet")
    assert len(history) == 2 * 3
    assert set(history["mechanism"]) == {"non_private", "opacus_flat"}
    figures = list((results / "tiny" / "figures" / "phantom_duke").iterdir())
    assert len(figures) >= 4 * 8
    assert {path.suffix for path in figures} == {".svg", ".png", ".pdf", ".txt", ".rst"}


def test_the_report_shows_every_figure_with_a_caption_of_this_run(checkout):
    from dpmedbench import figures

    report = (checkout.folder / "results" / "tiny" / "report.html").read_text()
    for info in figures.catalog().values():
        shown = info.task != "classification" and "perturbed" not in info.needs
        assert (info.title in report) == shown
    assert "A tiny study" in report
    assert report.count("scans.png") >= 2
    assert "one image added or removed, at delta 0.01, by the PRV accountant" in report


@pytest.mark.skipif(browser.PATH is None, reason=browser.LACKING)
def test_every_figure_table_and_caption_is_seen_in_a_browser(checkout):
    html = checkout.folder / "results" / "tiny" / "report.html"
    with report_tour.opened(html) as tab:
        paths = report_tour.visit(tab)
    assert {path.rpartition("/")[2] for path in paths} == report_tour.expected(html)


def test_the_privacy_record_tells_what_happened(checkout):
    private = checkout.folder / "results" / "tiny" / "cells" / CELLS[1] / "privacy.json"
    record = json.loads(private.read_text())
    assert record["sampler"] == "PoissonSampler"
    assert record["num_records"] == 4
    assert record["steps"] == 6
    with safe_open(private.with_name("model.safetensors"), "np") as model:
        assert record["noise_additions"] == 6 * len(model.keys())
    assert 0 < record["epsilon_pld"] <= record["epsilon_rdp"]


def test_a_second_run_does_nothing(checkout):
    code, said = checkout.run()
    assert code == 0
    assert "Nothing to be done" in said


def test_what_may_leave_is_packed(checkout):
    """The noise of the private cell comes from a seed: its weights stay."""
    code, said = checkout.run("share")
    assert code == 0, said
    assert "The report is" not in said
    with zipfile.ZipFile(checkout.folder / "results" / "tiny" / "share.zip") as file:
        assert set(file.namelist()) == {"README.md", "tables/summary.csv"}
        scores = file.read("tables/summary.csv").decode()
    assert "step_seconds" in scores
    assert "dice" not in scores  # of one patient
    manifest = checkout.folder / "results" / "tiny" / "cells" / CELLS[1] / "manifest.json"
    assert json.loads(manifest.read_text())["disclosure"]["model.safetensors"].startswith(
        "not covered: its noise comes from a seed"
    )


def test_a_cell_that_failed_is_packed_for_a_report_and_not_trained_again(checkout):
    checkout.write(TINY | {"study": "bad"})
    broken = "\ndef write(cell, outputs):\n    raise KeyError('Subject_01')\n"
    module = checkout.append("dpmedbench/outcome.py", broken)
    code, said = checkout.run(f"results/bad/cells/{CELLS[0]}/model.safetensors")
    assert code == 1
    target = re.search(r"to report this: snakemake (\S+\.zip) and the same options", said)[1]
    code, said = checkout.run(target)
    checkout.write(TINY)
    module.write_text(module.read_text().removesuffix(broken))
    assert code == 0, said
    assert "rule train" not in said
    with zipfile.ZipFile(checkout.folder / target) as file:
        assert {"settings.json", "versions.json", "train.log"} <= set(file.namelist())
        assert b"KeyError: '<patient>'" in file.read("train.log")
        assert all(b"Subject_" not in file.read(name) for name in file.namelist())


def test_comments_train_nothing_again(checkout):
    for path in ("train.py", "dpmedbench/training.py", "dpmedbench/store.py"):
        checkout.append(path, "\n# a comment\n")
    assert checkout.would_run() == {}


def test_a_figure_is_redrawn_without_training(checkout):
    file = checkout.append("dpmedbench/figures/training_loss.py", "\nADDED = 1\n")
    assert checkout.would_run() == {"figures_phantom_duke": 1, "paper": 1, "report": 1}
    file.write_text(file.read_text().replace("\nADDED = 1\n", ""))


def test_other_words_on_the_front_page_write_the_report_alone_anew(checkout):
    file = checkout.append("dpmedbench/captions.py", "\nADDED = 1\n")
    assert checkout.would_run() == {"report": 1}
    file.write_text(file.read_text().replace("\nADDED = 1\n", ""))


def test_an_engine_trains_its_own_cells_again(checkout):
    file = checkout.append("dpmedbench/mechanisms/opacus.py", "\nADDED = 1\n")
    assert checkout.would_run()["train"] == 1
    file.write_text(file.read_text().replace("\nADDED = 1\n", ""))


def test_a_new_noise_level_runs_its_own_cell_only(checkout):
    grid = TINY["grids"][0] | {"noise_multiplier": [1.0, 2.0]}
    checkout.write(TINY | {"grids": [grid]})
    assert checkout.would_run()["train"] == 1
    checkout.write(TINY)


def test_how_cells_are_executed_trains_nothing_again(checkout):
    execution = {"device": "auto", "checkpoint_seconds": 3, "physical_batch_size": 1}
    checkout.write(TINY | {"training": TINY["training"] | execution})
    assert checkout.would_run() == {"report": 1}
    checkout.write(TINY)


def test_delta_trains_private_cells_only(checkout):
    checkout.write(TINY | {"privacy": {"delta": 0.02}})
    assert checkout.would_run()["train"] == 1
    checkout.write(TINY)


def test_an_edited_split_is_kept_checked_and_trained_on(checkout):
    path = checkout.folder / "results" / "tiny" / "data" / "phantom_duke.splits.csv"
    before = path.read_text()
    swap = {"val": "test", "test": "val"}
    path.write_text(re.sub(r"\b(val|test)\b", lambda m: swap[m[0]], before))
    edited = path.read_text()
    assert edited != before
    assert checkout.would_run()["train"] == 2
    code, said = checkout.run("--forcerun", "split", "--until", "split")
    assert code == 0, said
    assert "edited by hand, kept" in said
    assert path.read_text() == edited

    rows = edited.splitlines()
    patient = next(row for row in rows if ",val," in row)
    path.write_text("\n".join([*rows, patient.replace(",val,", ",train,")]) + "\n")
    code, said = checkout.run("--until", "train")
    assert code == 1
    assert "phantom_duke.splits.csv" in said
    assert "Traceback" not in said
    path.write_text(before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"training": {"epoch": 3}},
            "config: training: found the key epoch, which there is not, did you",
        ),
        ({"privacy": {"delta": 0.5}}, "privacy.delta: found 0.5, but phantom_duke has 4 training"),
        (
            {"datasets": {"phantom_duke": {"loader": "duke", "source": "path", "path": "nowhere"}}},
            "datasets.phantom_duke.path: found 'nowhere', where there is nothing",
        ),
    ],
)
def test_a_mistake_in_the_config_is_one_sentence_before_any_job(checkout, change, sentence):
    checkout.write(TINY | change)
    code, said = checkout.run()
    assert code == 1
    assert sentence in said
    assert "Traceback" not in said
    assert "rule train" not in said
    checkout.write(TINY)


@pytest.mark.parametrize("target", ["data/foo.h5", "networks/phantom_duke/foo.json"])
def test_a_target_of_no_dataset_or_model_of_the_study_is_none(checkout, target):
    code, said = checkout.run("--dry-run", f"results/tiny/{target}")
    assert code == 1
    assert f"No rule to produce results/tiny/{target}" in said
    assert "Traceback" not in said


def test_a_wrong_raw_file_is_one_sentence_and_no_output(checkout):
    raw = checkout.folder / "mine" / "2015_BOE_Chiu"
    raw.mkdir(parents=True)
    (raw / "Subject_01.mat").write_bytes(b"not a mat file")
    dataset = TINY["datasets"]["phantom_duke"] | {"source": "path", "path": "mine"}
    study = TINY | {"datasets": {"mine": dataset}}
    checkout.write(study | {"grids": [TINY["grids"][0] | {"datasets": ["mine"]}]})
    code, said = checkout.run("--until", "preprocess")
    assert code == 1
    assert re.search(r"error in preprocess: .*Subject_01.mat", said)
    assert "Traceback" not in said
    assert not (checkout.folder / "results" / "tiny" / "data" / "mine.h5").exists()
    checkout.write(TINY)


def test_studies_prepare_one_dataset_apart_and_a_changed_raw_file_prepares_it_again(tmp_path):
    there = Checkout(tmp_path)
    more = TINY["datasets"]["phantom_duke"] | {"phantom": {"patients": 5, "image_size": [64, 64]}}
    for study in (TINY, TINY | {"study": "more", "datasets": {"phantom_duke": more}}):
        there.write(study)
        code, said = there.run("--until", "phantom")
        assert code == 0, said
    there.write(TINY)
    assert "phantom" not in there.would_run()
    (tmp_path / "resources" / "phantom" / "tiny" / "phantom_duke").rename(tmp_path / "mine")
    one = _of_folder("one", [32, 32])
    for study in (one, _of_folder("other", [16, 16])):
        there.write(study)
        code, said = there.run("--until", "preprocess")
        assert code == 0, said
        assert "preprocess" not in there.would_run()
    there.write(one)
    assert "preprocess" not in there.would_run()
    raw = next((tmp_path / "mine").rglob("*.mat"))
    before = raw.parent.stat().st_mtime_ns
    raw.write_bytes(raw.read_bytes())
    assert raw.parent.stat().st_mtime_ns == before
    assert there.would_run()["preprocess"] == 1


def test_a_change_beside_a_manifest_counts(tmp_path):
    custom.write_phantom(tmp_path / "mine", 4, 1, (64, 64))
    dataset = {
        "loader": "custom",
        "source": "path",
        "path": "mine/manifest.csv",
        "classes": ["background", "fluid"],
        "image_size": [32, 32],
        "split": {"method": "official"},
    }
    there = Checkout(tmp_path, TINY | {"datasets": {"phantom_duke": dataset}})
    code, said = there.run("--until", "preprocess")
    assert code == 0, said
    assert "preprocess" not in there.would_run()
    image = next((tmp_path / "mine" / "images").iterdir())
    image.write_bytes(image.read_bytes())
    assert there.would_run()["preprocess"] == 1


def _of_folder(study, image_size):
    dataset = TINY["datasets"]["phantom_duke"] | {"source": "path", "path": "mine"}
    datasets = {"phantom_duke": dataset | {"image_size": image_size}}
    return TINY | {"study": study, "datasets": datasets}


def test_a_library_installed_from_elsewhere_is_refused(checkout):
    """Python would find it before the one beside the scripts, and results would be of its code."""
    elsewhere = str(ROOT / "workflow" / "scripts")
    code, said = checkout.run("--forcerun", "split", "--until", "split", PYTHONPATH=elsewhere)
    assert code == 1
    assert re.search(r"error in split: dpmedbench: found in .*, expected in .*uninstall", said)
    assert (checkout.folder / "results" / "tiny" / "data" / "phantom_duke.splits.csv").exists()


def test_a_download_is_fetched_unpacked_and_read(checkout):
    """The official address is replaced by a server here, with a zip of the phantom's files."""
    raw = checkout.folder / "resources" / "phantom" / "tiny" / "phantom_duke"
    served = checkout.folder / "served"
    served.mkdir()
    shutil.make_archive(str(served / "2015_BOE_Chiu2"), "zip", raw)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    module = checkout.folder / "workflow" / "scripts" / "dpmedbench" / "datasets" / "duke.py"
    honest = module.read_text()
    here = f"http://127.0.0.1:{server.server_port}/"
    module.write_text(re.sub(r"https://www[^\"]*/", here, honest))
    dataset = TINY["datasets"]["phantom_duke"] | {"source": "download"}
    grid = TINY["grids"][0] | {"datasets": ["fetched"]}
    checkout.write(TINY | {"datasets": {"fetched": dataset}, "grids": [grid]})
    code, said = checkout.run("results/tiny/data/fetched.h5")
    server.shutdown()
    module.write_text(honest)
    checkout.write(TINY)
    assert code == 0, said
    data = checkout.folder / "results" / "tiny" / "data"
    with open_store(data / "fetched.h5") as one, open_store(data / "phantom_duke.h5") as other:
        assert one.digest == other.digest


def test_a_killed_training_job_goes_on_where_it_was(checkout):
    training = TINY["training"] | {"epochs": 60, "checkpoint_seconds": 0}
    checkout.write(TINY | {"training": training})
    target = f"results/tiny/cells/{CELLS[1]}/history.parquet"
    process = checkout.start(target)
    state = checkout.folder / "state" / "tiny" / CELLS[1]
    job = _training_job(process, state)
    os.kill(job, signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert not (checkout.folder / target).exists()
    code, said = checkout.run(target)
    assert code == 0, said
    assert int(re.search(r"going on after epoch (\d+) from", said)[1]) < 60
    assert len(pd.read_parquet(checkout.folder / target)) == 60
    checkout.write(TINY)


def _training_job(process, state):
    """Process id of the job that holds the lock of `state`, once it has a new checkpoint."""
    before = (state / "checkpoint.pt").stat().st_mtime_ns
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        if (state / "checkpoint.pt").stat().st_mtime_ns != before:
            return int(re.search(r"process (\d+)", (state / "lock").read_text())[1])
        time.sleep(0.05)
    raise AssertionError("no checkpoint in two minutes")


def test_braces_in_the_title_and_any_name_of_a_dataset_are_no_patterns(tmp_path):
    study = TINY | {
        "title": "DP on {OCT}",
        "datasets": {"over_all": TINY["datasets"]["phantom_duke"]},
        "grids": [TINY["grids"][0] | {"datasets": ["over_all"]}],
    }
    there = Checkout(tmp_path, study)
    found = there.would_run()
    assert (found["figures"], found["figures_over_all"]) == (1, 1)
    there.write(TINY | {"figures": []})
    code, said = there.run("--dry-run", "--printshellcmds", "--config", "title=DP on {OCT}")
    assert code == 0, said
    assert "rule figures" not in said
    # with the Snakemake of this Python, whichever is on the PATH
    assert f"{sys.executable} -m snakemake --profile none" in said
    assert "--config 'title=DP on {OCT}'" in said


def test_in_another_folder_the_configuration_is_that_of_the_workflow(tmp_path):
    there = Checkout(tmp_path / "workflow")
    config = there.folder / "config" / "config.yaml"
    config.write_text((there.folder / "study.yaml").read_text())
    command = [sys.executable, "-m", "snakemake", "--snakefile", there.folder / "Snakefile"]
    for options in ([], ["--directory", "other"]):
        done = subprocess.run(
            [*command, "--dry-run", "--quiet", "rules", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "phantom_duke" in done.stdout + done.stderr
