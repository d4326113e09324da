"""Versions stand in one place; what is made from it agrees with it."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dpmedbench import generated, imports, pins
from dpmedbench.mechanisms import fastdp

ROOT = Path(__file__).parents[1]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
pinned = pytest.mark.skipif(
    pins.locked() != LOCK, reason="other versions are installed than requirements.lock has"
)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of what is made and of what it is made from."""
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=skip)
    monkeypatch.setattr(imports, "SCRIPTS", tmp_path / imports.SCRIPTS.relative_to(ROOT))
    for name in ("ROOT", "LOCK", "PROJECT", "ENVS", "RULES"):
        monkeypatch.setattr(pins, name, tmp_path / getattr(pins, name).relative_to(ROOT))
    return tmp_path


def stale(copy, path, old, new):
    """What `make pins` would write again after an edit of one file."""
    file = copy / path
    text = file.read_text()
    assert re.search(old, text)
    file.write_text(re.sub(old, new, text, count=1))
    found = {path.relative_to(copy) for path, text in pins.files().items() if _differs(path, text)}
    return {str(path) for path in found}


def _differs(path, text):
    return not path.exists() or path.read_text() != text


@pinned
def test_everything_is_made_from_the_versions_installed():
    assert generated.main(pins.files, pins.ROOT, "pins", ["--check"]) == 0


@pinned
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("envs/figures.yaml", r"      - pandas==\S+\n", ""),
        ("envs/figures.yaml", r"(      - pandas==\S+\n)", r"\1      - tqdm==4.70.1\n"),
        ("envs/train.yaml", r"torch==\S+", "torch==2.0.0"),
        ("envs/report.yaml", "python==3", "python==4"),
        ("requirements.lock", r"numpy==\S+", "numpy==1.0.0"),
        ("pyproject.toml", r"opacus==[\d.]+", "opacus==1.0.0"),
    ],
)
def test_a_pin_that_is_missing_unneeded_or_another_is_found(copy, path, old, new):
    assert stale(copy, path, old, new) == {path}


@pinned
@pytest.mark.parametrize(
    ("path", "line", "envs"),
    [
        ("split.py", "import sklearn", {"preprocess"}),
        ("dpmedbench/splits.py", "import requests", {"train", "train_fastdp", "predict"}),
        ("dpmedbench/tasks/segmentation.py", "import requests", {"train", "train_fastdp"}),
        ("dpmedbench/figures/scans.py", "def _new():\n    import requests", {"figures"}),
        ("dpmedbench/config/base.py", "import torch", {"report"}),
    ],
)
def test_a_new_import_is_followed_to_the_environments_that_run_it(copy, path, line, envs):
    before = pins.files()
    for made, text in before.items():
        made.write_text(text)
    found = stale(copy, f"workflow/scripts/{path}", r"\Z", f"\n{line}\n")
    assert found == {f"envs/{env}.yaml" for env in envs}


@pinned
def test_an_import_that_nothing_asks_for_is_one_sentence(copy):
    file = copy / "workflow" / "scripts" / "table.py"
    file.write_text(file.read_text() + "\nimport polars\n")
    assert "found a step that imports polars, which pyproject.toml does not" in (
        generated.main(pins.files, copy, "pins", [])
    )


def test_what_is_imported_for_type_checking_is_not_needed():
    assert "torch" in pins.modules("train")[1]
    assert "torch" not in pins.modules("figures")[1]
    assert "matplotlib" not in pins.modules("train")[1]


def test_fastdp_is_the_one_commit_everywhere():
    """In its environment, in the sentence that asks for it, and in the documentation."""
    group = PROJECT["dependency-groups"]["fastdp"]
    said = (fastdp.CAPABILITIES.requires.install, (ROOT / "docs" / "engines.md").read_text())
    for pin in group[:2]:
        assert all(pin in text for text in said)
        assert pin in (ROOT / "envs" / "train_fastdp.yaml").read_text()
    shared = {Requirement(pin).name: pin.partition("==")[2] for pin in group[1:]}
    assert all(LOCK.get(name, version) == version for name, version in shared.items())
