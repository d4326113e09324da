"""What the README says works."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs():
    block = next(b for b in re.findall(r"(?:^    .*\n|^\n)+", README, re.MULTILINE) if "Plan(" in b)
    names = {}
    exec(re.sub(r"^    ", "", block, flags=re.MULTILINE), names)  # our own README
    plan = names["plan"]
    assert set(plan.epsilons(plan.steps)) == {"rdp", "prv", "gdp", "pld"}
    assert plan.calibrated(8.0).epsilon(plan.steps) <= 8.0


def test_every_file_and_target_it_names_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"config/studies/\w+\.yaml", README):
        assert (ROOT / path).exists(), path
    targets = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^  {target}\b", targets, re.MULTILINE), target
