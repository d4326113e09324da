"""Versions stand in several files; they agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
ENVS = sorted((ROOT / "envs").glob("*.yaml"))


def _name(package):
    return re.sub(r"[-_.]+", "-", package).lower()


VERSIONS = {_name(package): version for package, version in LOCK.items()}


def _agree(pins):
    for pin in pins:
        package, version = pin.split("==")
        assert VERSIONS[_name(package)] == version, pin


def test_what_pyproject_asks_for_is_what_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _agree(project["dependencies"] + project["optional-dependencies"]["dev"])


@pytest.mark.parametrize("path", ENVS, ids=lambda path: path.stem)
def test_each_step_runs_on_the_locked_versions(path):
    *conda, pip = yaml.safe_load(path.read_text())["dependencies"]
    assert all(re.fullmatch(r"\w+=[\d.]+", spec) for spec in conda)
    _agree(pip["pip"])


def test_every_rule_has_an_environment_that_exists():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    named = set(re.findall(r"envs/(\w+)\.yaml", rules))
    assert named == {path.stem for path in ENVS}
