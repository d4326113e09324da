"""The workflow as a module of another one, as the page says."""

from __future__ import annotations

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


def test_what_catalogs_read_agrees_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "## [" in line]
    assert headings[0] == "## [Unreleased]"
