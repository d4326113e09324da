"""The pages for contributors, followed in a copy of the checkout."""

from __future__ import annotations

import re
import shutil

import pages
import pytest
from checkout import ROOT, Checkout

PAGES = sorted((ROOT / "docs").glob("add_a_*.md"))


@pytest.mark.workflow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_who_follows_the_page_gets_what_it_says(tmp_path, page):
    folder = Checkout(tmp_path).folder
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    said = pages.follow(page, folder)
    assert "snakemake --dry-run" in said
    if "python -m pytest" in said:
        assert re.search(r"\.\.+ +\[100%\]", said)
    else:
        assert (folder / "results" / "discs" / "data" / "discs.splits.csv").exists()
    modules = [name for name in pages.files(page) if name.endswith(".py")]
    assert len(modules) == 1
    pages.run(["ruff", "check", *modules], folder)
    pages.run(["ruff", "format", "--check", *modules], folder)


def test_every_page_is_named_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert len(PAGES) == 4
    assert all(f"(docs/{page.name})" in text for page in PAGES)
