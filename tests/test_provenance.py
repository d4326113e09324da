"""Which edit runs which step again."""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dpmedbench import imports, provenance

SCRIPTS = provenance.ROOT.parent


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the scripts and the library; digests are taken of it."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(imports, "SCRIPTS", tmp_path / "scripts")
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
        ("dpmedbench/resize.py", {"preprocess"}),
        ("dpmedbench/store_writer.py", {"preprocess"}),
        ("dpmedbench/store.py", {"opacus", "ordinary"}),
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
        lambda text: re.sub(r"^(\w+ = .*)$", r'\1\n"""What it is."""', text, count=1, flags=re.M),
    ],
)
def test_comments_docstrings_and_layout_run_nothing(tree, edit):
    for path in ("dpmedbench/training.py", "dpmedbench/datasets/duke.py", "train.py"):
        assert changed(tree, path, edit) == set()


SOURCE = '''
def fit(x, y=None, *z, **names) -> list:
    """What it does."""
    text = f"{x:{y}}{y!r}" + u"\u1c89" if z else ""
    return [text, None, *z, {**names, 1: -0.5}]
'''


def test_a_digest_of_code_is_that_of_every_version_of_python(tmp_path, monkeypatch):
    """The literal is what 3.11, 3.12 and 3.13 give."""
    (tmp_path / "fit.py").write_text(SOURCE, "utf-8")
    assert provenance._tree_digest(tmp_path / "fit.py")[:16] == "ae433fb117b37493"
    tree = ast.parse(SOURCE)
    before = provenance._dump(tree)
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "more"))
    tree.body[0].more = []
    assert provenance._dump(tree) == before
    tree.body[0].more = [ast.Name("T")]
    assert provenance._dump(tree) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("return", "return None"),
        ("x = []", "x = ['']"),
        ("f(None)", "f('None')"),
        ("f()", "f('')"),
        ("x = 1", "x = 1.0"),
        ("{**x, 1: 2}", "{1: 2, **x}"),
        ("f'{x}'", "f'{x!s}'"),
        ("x = b''", "x = ''"),
        ("def f(*, a, b=1): ...", "def f(*, b, a=1): ..."),
    ],
)
def test_every_change_of_code_counts(one, other):
    assert provenance._dump(ast.parse(one)) != provenance._dump(ast.parse(other))


def test_a_table_beside_a_package_counts(tree):
    path = "dpmedbench/published/local_dp.csv"
    (tree / "train.py").write_text("import dpmedbench.published\n")
    assert changed(tree, path, lambda text: text + "\n") == {"opacus", "ordinary"}


def test_a_change_of_any_raw_file_counts(tmp_path):
    raw = tmp_path / "raw"
    (raw / "masks").mkdir(parents=True)
    for name in ("manifest.csv", "masks/a.png"):
        (raw / name).write_text("a")
    (raw / "again").symlink_to(raw)  # and no end of it
    (tmp_path / "elsewhere").mkdir()
    (raw / "linked").symlink_to(tmp_path / "elsewhere")

    def digest():
        provenance.files_digest.cache_clear()
        return provenance.files_digest(raw)

    found = [digest()]
    assert digest() == found[0]
    (raw / "masks" / "a.png").write_text("longer")
    found.append(digest())
    os.utime(raw / "manifest.csv", ns=(1, 1))
    found.append(digest())
    (raw / "masks" / "a.png").rename(raw / "masks" / "b.png")
    found.append(digest())
    (tmp_path / "elsewhere" / "c.png").touch()
    found.append(digest())
    assert len(set(found)) == 5
    for name in (".DS_Store", "manifest.csv~", "masks/.b.swp", "Thumbs.db", "desktop.ini"):
        (raw / name).touch()
    (raw / "gone").symlink_to(tmp_path / "nowhere")
    assert digest() == found[-1]
    assert provenance.files_digest(tmp_path / "nowhere") is None


def test_an_archive_counts_where_an_older_one_takes_its_place(tmp_path):
    archive, found = tmp_path / "raw.zip", set()
    for text, time in (("one", 3), ("two", 2), ("longer", 2)):
        archive.write_text(text)
        os.utime(archive, ns=(time, time))
        provenance.files_digest.cache_clear()
        found.add(provenance.files_digest(archive))
    assert len(found) == 3
    assert None not in found


def test_what_a_run_writes_into_the_raw_folder_does_not_count(tmp_path, monkeypatch):
    """`path: .`, or the folder above the working folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    names = (".", "..", here, "results")

    def digests():
        provenance.files_digest.cache_clear()
        return [provenance.files_digest(name) for name in names]

    kinds = ("results", "logs", "state", "config", "resources/phantom")
    for kind in kinds:
        (here / kind).mkdir(parents=True)
    before = digests()
    (here / "mine.yaml").touch()
    for kind in kinds:
        (here / kind / "new").touch()
    *found, asked_for = digests()
    assert found == before[:-1]
    assert asked_for != before[-1]
    for name in ("scan.png", "resources/scan.png"):
        before = digests()
        (here / name).touch()
        assert not set(digests()[:-1]) & set(before)


def test_a_new_plugin_runs_nothing(tree):
    before = digests(tree)
    Path(tree / "dpmedbench/mechanisms/new.py").write_text("CAPABILITIES = None\n")
    assert digests(tree) == before


def test_the_manifest_names_versions_and_commit():
    found = provenance.manifest()
    assert found["versions"]["torch"]
    here = Path(__file__).parents[1]
    head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    if (here / ".git").exists() and head.returncode == 0:
        assert found["commit"].removesuffix("-dirty") == head.stdout.strip()
    else:
        assert found["commit"] is None


def test_the_commit_is_that_of_the_code_whatever_is_tagged_or_lies_above(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    library = Path("workflow", "scripts", "dpmedbench")
    for root in (tmp_path, tmp_path / "unpacked"):
        (root / library).mkdir(parents=True)
    code = tmp_path / library / "code.py"
    monkeypatch.setattr(provenance, "ROOT", tmp_path / library)
    git("init"), code.touch(), git("add", str(code)), git("commit", "-m", "one")
    git("tag", "-a", "v1", "-m", "released")
    found = git("rev-parse", "HEAD").stdout.strip()
    assert provenance.commit() == found
    code.write_text("changed")
    assert provenance.commit() == f"{found}-dirty"
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "unpacked" / library)
    assert provenance.commit() is None  # not that of the folder above
