"""The environments of the steps: what conda reads, and which rule uses which."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import TINY, Checkout
from packaging.requirements import Requirement
from rattler import MatchSpec

from dpmedbench import cells, config, mechanisms, pins

ROOT = Path(__file__).parents[1]
ENVS = sorted((ROOT / "envs").glob("*.yaml"))
APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo apptainer version 1.4.0; exit; fi
echo "$@" >>asked
while [ "$1" != -c ]; do shift; done
exec bash -c "$2"
"""
SIZE = {"torch": {"train", "train_fastdp", "predict"}, "fastDP": {"train_fastdp"}}


def dependencies(path):
    *conda, pip = yaml.safe_load(path.read_text())["dependencies"]
    return conda, pip["pip"]


def exact(spec):
    """Whether a conda spec is strictly written and names one version."""
    try:
        version = str(MatchSpec(spec, strict=True).version)
    except Exception:
        return False
    return bool(re.fullmatch(r"==\d+(\.\d+)+", version))


@pytest.mark.parametrize("path", ENVS, ids=lambda path: path.stem)
def test_every_line_is_an_exact_pin(path):
    conda, pip = dependencies(path)
    assert conda
    assert all(exact(spec) for spec in conda)
    for pin in map(Requirement, pip):
        assert pin.url or [one.operator for one in pin.specifier] == ["=="], pin
        assert not pin.url or re.search(r"@[0-9a-f]{40}$", pin.url)


@pytest.mark.parametrize(
    "spec", ["python", "python>=3.11", "python=3.11", "opacus =1.5.*", "a==1=="]
)
def test_a_loose_or_broken_spec_is_none(spec):
    assert not exact(spec)


@pytest.mark.parametrize("path", ENVS, ids=lambda path: path.stem)
def test_only_one_channel_is_asked(path):
    assert yaml.safe_load(path.read_text())["channels"] == ["conda-forge", "nodefaults"]


@pytest.mark.parametrize("package", SIZE)
def test_what_is_large_is_where_it_is_needed(package):
    having = {p.stem for p in ENVS if package in {Requirement(x).name for x in dependencies(p)[1]}}
    assert having == SIZE[package]


def test_every_rule_that_runs_something_has_an_environment_that_exists():
    assert set(pins.steps()) == {path.stem for path in ENVS}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^(?=(?:use )?rule )", path.read_text(), flags=re.M)[1:]:
            if "script:" in rule or "shell:" in rule:
                assert "envs/" in rule or "localrule: True" in rule, rule.splitlines()[0]


def test_an_engine_that_is_missing_here_is_trained_in_its_own_environment(monkeypatch):
    monkeypatch.setattr(mechanisms, "missing", lambda engine: f"no {engine}")
    study = config.load(TINY)
    cell = cells.every(study)[0]
    assert cells.why_not(study, cell) == "no none"
    assert cells.why_not(study, cell, deployed=True) is None


def test_a_missing_image_is_one_sentence_before_any_job(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--sdm", "apptainer"]
    options = ["--snakefile", ROOT / "Snakefile", "--configfile", ROOT / "config" / "config.yaml"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "dpmedbench.sif: found none in this folder" in said
    assert "Traceback" not in said


@pytest.mark.workflow
def test_a_container_is_shown_the_library_in_its_place_alone(tmp_path):
    """What is bound from the path of Snakemake comes first there, and a job refuses it."""
    double, there = tmp_path / "apptainer", Checkout(tmp_path / "checkout")
    double.write_text(APPTAINER)
    double.chmod(0o755)
    (there.folder / "dpmedbench.sif").touch()
    made = "resources/phantom/tiny/phantom_duke"
    path = f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"
    code, said = there.run(made, "--sdm", "apptainer", PATH=path)
    assert code == 0, said
    assert (there.folder / made).is_dir()
    asked = (there.folder / "asked").read_text()
    assert f"--home {there.folder}" in asked
    assert str(there.folder / "workflow" / "scripts") not in asked


def test_the_container_is_of_the_same_python_and_pip():
    text = (ROOT / "Containerfile").read_text()
    python, pip = (pin.partition("==")[2] for pin in pins.CONDA)
    assert f"FROM python:{python}-" in text
    assert f"pip=={pip} " in text
    for copied in re.search(r"^COPY (.*) \./$", text, re.M)[1].split():
        assert (ROOT / copied).exists()
