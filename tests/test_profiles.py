"""The profiles: what each rule asks of a cluster, and that the two agree in the rest."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import TINY, Checkout

PROFILES = Path(__file__).parents[1] / "workflow" / "profiles"
DEFAULT, SLURM = (
    yaml.safe_load((PROFILES / name / "config.yaml").read_text()) for name in ("default", "slurm")
)
STUDY = TINY | {
    "mechanisms": TINY["mechanisms"] | {"local": {"engine": "local"}},
    "grids": [TINY["grids"][0] | {"mechanisms": ["opacus_flat", "local"], "beta": [1.0]}],
}
RULES = "".join(path.read_text() for path in (PROFILES.parent / "rules").glob("*.smk"))


# They read files of every cell, as those do that draw figures; a group of them is slow to schedule.
OF_ALL_CELLS = {"table", "findings", "paper", "share", "share_with_patients"}


def _rules():
    """{rule: what it says}, those made of another (`use rule`) with what that one says."""
    found = {}
    for kind, base, name, text in re.findall(
        r"^(rule|use rule (\w+) as) (\w+)(?: with)?:\n((?:    .*\n|\n)*)", RULES, re.MULTILINE
    ):
        found[name] = text + (found[base] if kind != "rule" else "")
    return found


@pytest.mark.parametrize(("rule", "text"), _rules().items())
def test_every_short_job_shares_one_and_training_does_not(rule, text):
    runs = re.search(r"^    (script|shell|run):", text, re.MULTILINE)
    alone = "localrule: True" in text or "gpu=" in text or rule in OF_ALL_CELLS
    assert (rule in SLURM["groups"]) == bool(runs and not alone)


def test_a_group_names_rules_that_there_are():
    assert set(SLURM["groups"]) | set(SLURM["set-resources"]) <= set(_rules())
    assert set(SLURM["group-components"]) <= set(SLURM["groups"].values())


def test_a_user_edits_six_lines_with_a_comment():
    lines = (PROFILES / "slurm" / "config.yaml").read_text().splitlines()
    assert len([line for line in lines if re.search(r": \S+ # \[edit\] \S", line)]) == 6


def test_the_profiles_agree_in_what_is_not_of_the_cluster():
    shared = set(DEFAULT) - {"resources"}
    assert {key: SLURM.get(key) for key in shared} == {key: DEFAULT[key] for key in shared}


def test_split_files_of_the_largest_dataset_are_compared_by_content():
    """Chest X-ray in ten folds; by time, a split that is drawn again would train all cells anew."""
    line = "0,train,person1000_bacteria,1000,train/PNEUMONIA/person1000_bacteria_2931.jpeg\n"
    assert 10 * 5856 * len(line) < DEFAULT["max-checksum-file-size"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """{(rule, attempt): its resources} as a dry run tells them, once there are data.

    A rule that reads noisy images is named "noisy ..." there.
    """
    there = Checkout(tmp_path_factory.mktemp("checkout"), STUDY)
    data = there.folder / "results" / "tiny" / "data"
    data.mkdir(parents=True)
    (data / "phantom_duke.h5").write_bytes(bytes(50 << 20))
    (data / "phantom_duke.laplace.beta1.h5").write_bytes(bytes(100 << 20))
    (data / "phantom_duke.splits.csv").write_text("")
    options = ["--dry-run", "--configfile", "study.yaml"]
    options += ["--workflow-profile", str(PROFILES / "slurm")]
    found = {}
    for attempt in (1, 2):
        said = subprocess.run(
            [sys.executable, "-m", "snakemake", *options, "--attempt", str(attempt)],
            cwd=there.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for rule, files, resources in re.findall(
            r"^ *rule (\w+):\n((?: .*\n)*?) *resources: (.*)$", said, re.MULTILINE
        ):
            name = "noisy " * (".laplace." in files) + rule
            found[name, attempt] = dict(re.findall(r"(\w+)=([^,]+)", resources))
    return found


def test_training_asks_for_a_gpu_and_by_the_size_of_the_data(asked):
    train = asked["train", 1]
    assert (train["gpu"], train["slurm_partition"]) == ("1", "gpu")
    assert int(train["mem_mb"]) == 8000 + 4 * 50
    assert int(train["runtime"]) == 60 + 50 * TINY["training"]["epochs"] // 60


def test_training_asks_for_no_more_time_than_images_and_epochs_take(asked):
    """Not for the noisy copy of the images, nor in another attempt, which goes on."""
    assert int(asked["noisy train", 1]["mem_mb"]) == 8000 + 4 * 150
    times = [asked[rule, attempt]["runtime"] for rule, attempt in asked if "train" in rule]
    assert times == 4 * times[:1]


def test_a_prediction_asks_for_no_more_memory_for_more_images(asked):
    """It reads a batch at a time, and up to 20 share a job."""
    memory = {rule: asked[rule, 1]["mem_mb"] for rule in ("segment", "noisy segment")}
    assert memory == {"segment": "3000", "noisy segment": "3000"}


@pytest.mark.parametrize(
    ("rule", "key"),
    [("train", "mem_mb"), *itertools.product(("scans", "page"), ("mem_mb", "runtime"))],
)
def test_another_attempt_asks_for_more(asked, rule, key):
    once, twice = (int(asked[rule, attempt][key]) for attempt in (1, 2))
    assert twice == pytest.approx(2 * once, abs=1)


def test_no_short_job_asks_for_a_gpu(asked):
    for (rule, _), resources in asked.items():
        assert ("gpu" in resources) == ("train" in rule), rule
        assert resources["slurm_partition"] == ("gpu" if "train" in rule else "cpu")
