"""What the README says works."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]


def test_the_library_example_runs():
    block = next(b for b in re.findall(r"(?:^    .*\n|^\n)+", README, re.MULTILINE) if "Plan(" in b)
    names = {}
    exec(re.sub(r"^    ", "", block, flags=re.MULTILINE), names)  # our own README
    plan = names["plan"]
    assert set(plan.epsilons(plan.steps)) == {"rdp", "prv", "gdp", "pld"}
    assert plan.calibrated(8.0).epsilon(plan.steps) <= 8.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text()):
        there = page.parent / link if link else page
        assert there.exists(), link
        if heading:
            found = re.findall(r"^#+ (.+)", there.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in found]


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in index] == []
    assert "(docs/README.md)" in "".join(README.splitlines(keepends=True)[:10])


def test_every_file_and_target_it_names_exists():
    for path in re.findall(r"config/studies/\w+\.yaml", README):
        assert (ROOT / path).exists(), path
    for path in (ROOT / "config" / "studies").glob("*.yaml"):
        assert f"`{path.name}`" in README, path
    targets = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for target in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^  {target}\b", targets, re.MULTILINE), target
