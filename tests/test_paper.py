"""The export for a paper: names, captions, and LaTeX that compiles."""

import os
import re
import shutil
import subprocess

import pandas as pd
import pytest
from matplotlib.figure import Figure
from report_tables import TABLES

from dpmedbench import comparisons, report
from dpmedbench.report import latex, pages, paper

FIGURES = (
    ("time_per_epoch", "Time per epoch", "duke", "bookkeeping", "Figures 5 and 6"),
    ("training_time", "Training time", "duke", "clipping", "Training time over iterations"),
    ("utility", "Utility against ε", "", "", ""),
)
NAMES = (
    "bookkeeping_fig05-06_duke_time_per_epoch.pdf",
    "clipping_duke_training_time.pdf",
    "utility.pdf",
)
CAPTION = "Dice of σ = 0.5 & 50 % of {phantom_duke}: 1e-5 ≤ ε < ∞ – #1 ~ a^b\\c 中."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of three figures and every page."""
    made = tmp_path_factory.mktemp("made")
    drawn = []
    for name, title, dataset, study, label in FIGURES:
        path = made / f"{name}.pdf"
        Figure(figsize=(2, 1)).savefig(path)
        path.with_suffix(".txt").write_text(CAPTION)
        drawn.append(paper.Drawn(path, title, dataset, study, label))
    for name in report.PAGES:
        pages.write(
            name, TABLES, {suffix: made / f"{name}.{suffix}" for suffix in ("html", "csv", "tex")}
        )
    there = tmp_path_factory.mktemp("export") / "paper"
    tables = [made / f"{name}.{suffix}" for suffix in ("tex", "csv") for name in report.PAGES]
    paper.write(there, "A study", drawn, tables)
    return there


def test_figures_are_named_by_what_they_are_in_the_published_study(folder):
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Figure 4 (its layers)", "s_fig04_d_x.pdf"),
        ("Figures 9 and 10", "s_fig09-10_d_x.pdf"),
        ("3 libraries", "s_d_x.pdf"),
    ],
)
def test_a_name_has_every_number_of_its_figure(label, name):
    assert paper.Drawn(paper.Path("x.pdf"), "X", "d", "s", label).name == name


def test_the_readme_says_of_every_file_what_it_is(folder):
    text = (folder / "README.md").read_text()
    for path in (*folder.glob("figures/*"), *folder.glob("tables/*")):
        assert str(path.relative_to(folder).with_suffix("")) in text
    assert "Figures 5 and 6" in text
    assert CAPTION in text


def test_every_file_is_in_figures_tex_or_tables_tex_once(folder):
    figures, tables = ((folder / f"{kind}.tex").read_text() for kind in ("figures", "tables"))
    assert re.findall(r"\{figures/(.*?)\}", figures) == list(NAMES)
    assert sorted(re.findall(r"\{tables/(.*?)\.tex\}", tables)) == sorted(report.PAGES)


def test_labels_are_unique(folder):
    text = "".join(path.read_text() for path in folder.rglob("*.tex"))
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) >= len(NAMES) + len(report.PAGES)


@pytest.mark.parametrize("text", ["\\", "&%$#_{}~^", "<σ ≤ ε>", "0.5 ± 1 × 10", "naïve – “中”"])
def test_no_character_breaks_the_text(text):
    escaped = latex.escape(text)
    assert not re.search(r"(?<!\\)[&%#_]", escaped)
    assert escaped.isprintable()
    assert escaped.encode("latin-1")


@pytest.mark.parametrize("columns", [4, 5, 8])
def test_a_long_text_has_room_whatever_stands_beside_it(columns):
    rows = pd.DataFrame([{f"{n}": 20 * "x" for n in range(columns)} | {"note": comparisons.FEW}])
    text = latex.tables({"": rows}, "title", "caption", "label")
    (width,) = re.findall(r"p\{(.*?)\\linewidth\}", text)
    assert 0.3 < float(width) < 1


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no pdflatex: apt-get install texlive-latex-recommended"
)
def test_it_compiles(folder, tmp_path):
    packages = "".join(rf"\usepackage{{{name}}}" for name in latex.PACKAGES)
    (folder / "main.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}"
        rf"\input{{tables}}\input{{figures}}\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-output-directory", tmp_path, "main.tex"],
        cwd=folder,
        env=os.environ | {"max_print_line": "1000"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    pages_made = int(re.search(r"\((\d+) pages?", done.stdout)[1])
    assert pages_made >= 2
    wide = [
        float(points) for points in re.findall(r"Overfull \\hbox \((.*?)pt too wide\)", done.stdout)
    ]
    assert max(wide, default=0) < 40
