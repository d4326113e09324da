"""The workflow as a module of another one, as the page says."""

from __future__ import annotations

import re
import tomllib

import pages
import pytest
import yaml
from checkout import ROOT

from dpmedbench import config


@pytest.mark.workflow
def test_another_workflow_uses_it_as_a_module(tmp_path):
    (tmp_path / "dp-medbench").symlink_to(ROOT)
    said = pages.follow(ROOT / "docs" / "module.md", tmp_path)
    assert "dp_train" in said
    assert "dp_report" not in said  # the default target is that of the page
    assert (tmp_path / "results" / "mine" / "data" / "scans.splits.csv").exists()
    private = yaml.safe_load((tmp_path / "config.yaml").read_text())["dpmedbench"]
    assert config.load(private).study == "mine"


@pytest.mark.workflow
def test_each_of_two_studies_has_the_front_page_of_its_own_report(tmp_path):
    (tmp_path / "dp-medbench").symlink_to(ROOT)
    given = pages.files(ROOT / "docs" / "module.md")
    module = given["Snakefile"].partition("rule all")[0].partition("module")
    other = "".join(module[1:]).replace("dpmedbench", "other").replace("dp_", "other_")
    shown = 'print(config["front"]["study"], "is in front")\n'
    (tmp_path / "Snakefile").write_text("".join(module) + other + shown)
    mine = yaml.safe_load(given["config.yaml"])["dpmedbench"]
    both = {"dpmedbench": mine, "other": mine | {"study": "others"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(both))
    dry = ["snakemake", "--dry-run", "--printshellcmds"]
    for rule, study in (("dp_report", "mine"), ("other_report", "others")):
        said = pages.run([*dry, rule], tmp_path)
        setting = re.search(r"(DPMEDBENCH_\w+=\w+) ", said)[1]
        said = pages.run(["env", setting, *dry, rule], tmp_path)
        assert f"{study} is in front" in said


def test_what_catalogs_read_agrees_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "## [" in line]
    assert headings[0] == "## [Unreleased]"
