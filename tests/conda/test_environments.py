"""Every environment of envs/, made from its pins alone, and each step run in its own.

Snakemake makes them with `--sdm conda`, where `conda` is a test double (conda_double.py): a solver
and an installer on a channel of this disk, and pip. What starts Snakemake is itself made from
envs/report.yaml, as users are told: so the packages of its own that Snakemake adds to the path of
each script are few, and what those could still hide is imported once more without them.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import conda_double
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dpmedbench import pins

ROOT = Path(__file__).parents[2]
ENVS = sorted(path.stem for path in (ROOT / "envs").glob("*.yaml"))
SPLIT = {"method": "ratio", "ratios": [0.5, 0.25, 0.25]}
STUDY = {
    "study": "steps",
    "title": "One cell of each kind",
    "datasets": {
        "scans": {
            "loader": "duke",
            "image_size": [32, 32],
            "split": SPLIT,
            "phantom": {"patients": 4, "scans": 2, "image_size": [64, 64]},
        },
        "photos": {
            "loader": "aptos",
            "image_size": [32, 32],
            "split": SPLIT,
            "phantom": {"patients": 24, "scans": 1, "image_size": [48, 48]},
        },
    },
    "models": {
        "unet": {"features": [4, 8], "num_groups": 2},
        "resnet18": {"features": [4, 8, 8, 8], "num_groups": 2},
    },
    "mechanisms": {
        "non_private": {"engine": "none"},
        "opacus": {"engine": "opacus", "clipping": "abadi", "clipping_style": "flat"},
        "fastdp": {"engine": "fastdp", "clipping": "abadi", "clipping_style": "flat"},
        "laplace": {"engine": "local"},
    },
    "privacy": {"delta": 0.01},
    "training": {"epochs": 1, "batch_size": 2, "device": "cpu"},
    "figures": ["training_loss", "test_masks", "confusion_matrix", "perturbed_images"],
}
PHOTOS = {
    "datasets": ["photos"],
    "models": ["resnet18"],
    "mechanisms": ["laplace"],
    "beta": [0.5],
}


@functools.cache
def why_no_fastdp():
    """Why fastDP cannot be installed, None where it can; asks the repository that the pin names."""
    address = re.search(r"git\+(\S+)@", pins.own("train_fastdp")[0])[1]
    ask = ["git", "ls-remote", "--quiet", address]
    try:
        found = subprocess.run(ask, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return found.stderr.strip() if found.returncode else None


def can_make(env):
    """Skip the test of an environment that cannot be made here."""
    if env == "train_fastdp" and why_no_fastdp():
        pytest.skip(f"fastDP cannot be fetched: {why_no_fastdp()}")


def study(*more):
    """The study, with `more` mechanisms on the scans."""
    scans = {
        "datasets": ["scans"],
        "models": ["unet"],
        "mechanisms": ["non_private", "opacus", *more],
        "noise_multiplier": [1.0],
    }
    return STUDY | {"grids": [scans, PHOTOS]}


def possible():
    """The study, less fastDP where it cannot be installed."""
    return study() if why_no_fastdp() else study("fastdp")


class Checkout:
    """A copy of the workflow that knows no Python but what it makes itself."""

    def __init__(self, folder):
        self.folder = folder / "checkout"
        skip = shutil.ignore_patterns("__pycache__")
        for name in ("workflow", "config", "envs"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=skip)
        shutil.copy(ROOT / "Snakefile", self.folder)
        self.double = conda_double.write(folder / "conda", pins.CONDA)
        self.start = folder / "start"
        made = self.command("conda", "env", "create", "--file", "envs/report.yaml", "--prefix")
        assert made[0] == 0, made[1]

    def command(self, *arguments):
        """Run a command in the environment that Snakemake is started from."""
        if arguments[-1] == "--prefix":
            arguments = (*arguments, str(self.start))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        path = f"{self.start / 'bin'}:{self.double['PATH']}"
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=kept | self.double | {"PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def run(self, *arguments, given=None):
        """Run Snakemake on a study, the possible one; its exit code and what it printed."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(given or possible()))
        options = ["--sdm", "conda", "--cores", "2", "--configfile", "study.yaml"]
        return self.command("snakemake", *arguments, *options)

    def prefixes(self):
        """Where the environments lie that Snakemake made, by their text."""
        folder = self.folder / ".snakemake" / "conda"
        return {path.read_text(): path.with_suffix("") for path in folder.glob("*.yaml")}

    def python(self, env):
        """The interpreter of an environment."""
        text = (self.folder / "envs" / f"{env}.yaml").read_text()
        return self.prefixes()[text] / "bin" / "python"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("conda"))


@pytest.fixture(scope="module")
def ran(checkout):
    """The study after a whole run: exit code and what was printed."""
    code, said = checkout.run()
    assert code == 0, said
    return said


def test_the_whole_study_runs_each_step_in_its_environment(checkout, ran):
    results = checkout.folder / "results" / "steps"
    assert (results / "report.html").exists()
    trained = set(pd.read_parquet(results / "tables" / "history.parquet")["mechanism"])
    assert trained == {name for grid in possible()["grids"] for name in grid["mechanisms"]}
    activated = {Path(found).name for found in re.findall(r"Activating conda env.*: (\S+)", ran)}
    wanted = {checkout.python(env).parents[1].name for env in ENVS if not _left_out(env)}
    assert activated == wanted
    start = checkout.start / "lib"
    assert not list(start.glob("*/site-packages/torch"))  # nor pandas: steps have their own
    assert not list(start.glob("*/site-packages/pandas"))


def _left_out(env):
    return env == "train_fastdp" and why_no_fastdp()


def test_a_second_run_makes_nothing(checkout, ran):
    code, said = checkout.run()
    assert code == 0, said
    assert "Nothing to be done" in said


def test_a_cell_of_fastdp_asks_for_its_environment(checkout):
    """Also where it cannot be made; that fastDP is not installed here leaves no cell out."""
    given = study("fastdp")
    code, said = checkout.run("--dry-run", "--conda-prefix", "elsewhere", given=given)
    assert code == 0, said
    assert re.search(r"Conda environment .*train_fastdp.yaml will be created", said)
    assert "left out" not in said
    del given["grids"][0]["mechanisms"][-1]
    assert "train_fastdp" not in checkout.run("--dry-run", given=given)[1]


@pytest.mark.parametrize("env", ENVS)
def test_everything_that_a_step_imports_is_there(checkout, ran, env):
    """With no path but the environment's own and the library's."""
    can_make(env)
    assert imported(checkout.python(env), env) == ""


@pytest.mark.parametrize("env", ENVS)
def test_nothing_is_installed_that_is_not_pinned(checkout, ran, env):
    can_make(env)
    python = checkout.python(env)
    subprocess.run([python, "-m", "pip", "check"], check=True, capture_output=True)
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True
    )
    found = {canonicalize_name(Requirement(line).name) for line in freeze.stdout.splitlines()}
    *_, pip = yaml.safe_load((ROOT / "envs" / f"{env}.yaml").read_text())["dependencies"]
    pinned = {canonicalize_name(Requirement(pin).name) for pin in pip["pip"]} | {"pip"}
    assert {name for name in found if not pins.CUDA.match(name)} == pinned


@pytest.mark.parametrize(
    ("old", "new"),
    [(r"python==[\d.]+", "python==99.0"), (r"h5py==[\d.]+", "h5py==0.0.0")],
    ids=["conda", "pip"],
)
def test_an_unsolvable_pin_is_said_and_leaves_nothing(checkout, ran, old, new):
    file = checkout.folder / "envs" / "predict.yaml"
    before = file.read_text()
    file.write_text(re.sub(old, new, before))
    known = set(checkout.prefixes().values())
    code, said = checkout.run("--forcerun", "segment", "--until", "segment")
    failed = set(checkout.prefixes().values()) - known
    file.write_text(before)
    assert code == 1
    assert "Could not create conda environment from" in said
    assert new.partition("==")[0] in said
    assert "rule segment" not in said
    assert not [prefix for prefix in failed if prefix.exists()]
    assert list((checkout.folder / "results").glob("steps/cells/*/*/*/*/*/*/scores.parquet"))


def test_the_container_has_what_every_step_imports(tmp_path):
    """Its pip line, run in a clean environment; the image is built from nothing else."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text()).splitlines()
    install = next(line for line in lines if line.startswith("RUN") and "requirements.lock" in line)
    if why_no_fastdp():
        install = install.replace("--group fastdp", "")
    venv.create(tmp_path / "venv", symlinks=True, with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    for arguments in re.findall(r"pip install ([^&]*)", install):
        command = [python, "-m", "pip", "install", "--quiet", "--no-compile", *arguments.split()]
        subprocess.run(command, cwd=ROOT, check=True)
    for env in ENVS:
        if not _left_out(env):
            assert imported(python, env) == ""


def imported(python, env):
    """What goes wrong when an interpreter imports all that the steps of `env` do; "" if nothing."""
    ours, others = pins.modules(env)
    missing = {"fastDP"} if env != "train_fastdp" else set()
    program = f"""
import importlib, sys
sys.path.append({str(ROOT / "workflow" / "scripts")!r})
for name in {sorted(ours | others - missing)!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""
    done = subprocess.run([python, "-I", "-B", "-c", program], capture_output=True, text=True)
    return done.stdout + (done.stderr if done.returncode else "")


def test_python_is_that_of_the_environments():
    assert pins.CONDA[0].startswith(f"python=={sys.version_info[0]}.{sys.version_info[1]}.")
