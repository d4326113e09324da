"""Which edit runs which step again."""

import shutil
from pathlib import Path

import pytest

from dpmedbench import provenance

SCRIPTS = provenance.ROOT.parent


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the scripts and the library; digests are taken of it."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "scripts" / "dpmedbench")
    return tmp_path / "scripts"


def digests(tree):
    for cached in (
        provenance.code_digest,
        provenance._tree,
        provenance._tree_digest,
        provenance._imports,
    ):
        cached.cache_clear()
    train = ("models.unet", "tasks.segmentation")
    return {
        "preprocess": provenance.code_digest(tree / "preprocess.py", "datasets.duke"),
        "opacus": provenance.code_digest(tree / "train.py", "mechanisms.opacus", *train),
        "ordinary": provenance.code_digest(tree / "train.py", "mechanisms.none", *train),
        "figure": provenance.code_digest(tree / "figures.py", "figures.training_loss"),
    }


def changed(tree, path, edit):
    """The steps whose digest an edit of the file `path` changes."""
    before = digests(tree)
    file = tree / path
    file.write_text(edit(file.read_text()))
    after = digests(tree)
    return {step for step in before if before[step] != after[step]}


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("dpmedbench/training.py", {"opacus", "ordinary"}),
        ("dpmedbench/losses.py", {"opacus", "ordinary"}),
        ("dpmedbench/models/unet.py", {"opacus", "ordinary"}),
        ("dpmedbench/privacy/sampling.py", {"opacus", "ordinary"}),
        ("dpmedbench/mechanisms/opacus.py", {"opacus"}),
        ("dpmedbench/opacus_engines/base.py", {"opacus"}),
        ("dpmedbench/mechanisms/bookkeeping.py", set()),
        ("dpmedbench/mechanisms/none.py", {"opacus", "ordinary"}),
        ("dpmedbench/datasets/duke.py", {"preprocess"}),
        # the store, which training reads, resizes what it writes
        ("dpmedbench/resize.py", {"preprocess", "opacus", "ordinary"}),
        ("dpmedbench/figures/training_loss.py", {"figure"}),
        ("dpmedbench/figures/curves.py", {"figure"}),
        ("dpmedbench/figures/style.py", {"figure"}),
        ("train.py", {"opacus", "ordinary"}),
        ("dpmedbench/config/data.py", set()),
    ],
)
def test_an_edit_of_code_runs_what_uses_it(tree, path, steps):
    assert changed(tree, path, lambda text: text + "\nADDED = 1\n") == steps


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n# a comment\n",
        lambda text: text.replace('"""', '"""Reworded. ', 1),
        lambda text: text.replace("\n\n\n", "\n\n\n\n"),
    ],
)
def test_comments_docstrings_and_layout_run_nothing(tree, edit):
    for path in ("dpmedbench/training.py", "dpmedbench/datasets/duke.py", "train.py"):
        assert changed(tree, path, edit) == set()


def test_a_new_plugin_runs_nothing(tree):
    before = digests(tree)
    Path(tree / "dpmedbench/mechanisms/new.py").write_text("CAPABILITIES = None\n")
    assert digests(tree) == before


def test_the_manifest_names_versions_and_commit():
    found = provenance.manifest()
    assert found["versions"]["torch"]
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40
