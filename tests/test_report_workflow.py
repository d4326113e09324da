"""The report of a run with a failed cell: made all the same, complete, and seen in a browser."""

import re
import shlex

import browser
import pandas as pd
import pytest
import report_tour
from checkout import TINY, Checkout

pytestmark = pytest.mark.workflow

FAILING = "phantom_duke/unet/opacus_flat/sigma1/fold0/seed0"
STUDY = TINY | {
    "title": "A study with a gap",
    "training": TINY["training"] | {"epochs": 2},
    "figures": ["time_per_epoch", "example_scans", "missing_cells"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkout in which one of two cells failed; what the failing run and the report's said."""
    there = Checkout(tmp_path_factory.mktemp("checkout"))
    there.write(STUDY)
    state = there.folder / "state" / "tiny" / FAILING
    state.parent.mkdir(parents=True)
    state.touch()  # a file where the cell wants to keep its checkpoints
    code, failed = there.run()
    assert code == 1, failed
    command = re.search(r"snakemake --cores all (.*--config unfinished=true)", failed)
    code, reported = there.run(*shlex.split(command[1]))
    assert code == 0, reported
    return there, failed, reported


@pytest.fixture(scope="module")
def html(run):
    """The report."""
    return run[0].folder / "results" / "tiny" / "report.html"


def test_the_run_that_failed_names_the_command_for_a_report_and_makes_none_itself(run):
    there, failed, _ = run
    failure = re.search(r"^logs/tiny/train/(.+).log: failed: .*state/tiny/.*$", failed, re.M)
    assert failure[1] == FAILING
    assert "For a report of what there is" in failed[failure.end() :]
    assert "study.yaml" in failed.partition("For a report of what there is")[2]
    assert not list(there.folder.glob("results/tiny/cells/**/opacus_flat/**/manifest.json"))


def test_a_report_of_what_there_is_trains_nothing(run):
    there, _, said = run
    code, rules = there.run("--list-rules", "--config", "unfinished=true")
    assert code == 0, rules
    assert {"train", "segment", "classify", "preprocess"}.isdisjoint(rules.split())
    assert not re.search(r"^(local)?rule (train|segment|classify|preprocess|split):", said, re.M)
    assert re.search(r"^(local)?rule report:", said, re.M)


def test_it_names_what_is_missing_and_has_the_rest(run, html):
    text = html.read_text()
    assert "1 of 2 cells are missing" in text
    assert re.search(rf"{FAILING}.{{0,80}}training failed: ", text)
    history = pd.read_parquet(html.parent / "tables" / "history.parquet")
    assert set(history["mechanism"]) == {"non_private"}


def test_the_whole_run_makes_it_all_again(run, html):
    """The cell is mended: tables, figures and report of one cell are not taken for those of two."""
    there, _, _ = run
    state = there.folder / "state" / "tiny" / FAILING
    state.unlink()
    jobs = there.would_run()
    state.touch()
    assert jobs["train"] == jobs["segment"] == jobs["findings"] == jobs["paper"] == 1
    tables = list((html.parent / "tables").glob("*.parquet"))
    assert jobs["table"] + jobs["derived_table"] == len(tables)
    assert sum(count for rule, count in jobs.items() if rule.startswith("figures")) == 2
    assert jobs["page"] == len(list((html.parent / "pages").glob("*.html"))) - 1  # engines
    assert jobs["report"] == 1


@pytest.mark.skipif(browser.PATH is None, reason=browser.LACKING)
def test_it_can_be_read_and_opened_in_a_browser(html):
    with report_tour.opened(html) as tab:
        title = "document.querySelector('.prose h1')"
        assert tab.script(f"{title}.textContent") == "A study with a gap"
        assert tab.script(f"{title}.getBoundingClientRect().top") >= 0
        words = tab.script("document.querySelector('.prose').innerText")
        order = ("unfinished", "What was run", "What this run says", "What epsilon prot", FAILING)
        places = [words.find(text) for text in order]
        assert min(places) >= 0
        assert places == sorted(places)
        assert "System Message" not in words
        tab.script("document.querySelector('.prose ol a').click()")
        tab.wait("app.state.category?.endsWith('What this run says')")
        paths = report_tour.visit(tab)
    assert {path.rpartition("/")[2] for path in paths} == report_tour.expected(html)


@pytest.mark.skipif(browser.PATH is None, reason=browser.LACKING)
@pytest.mark.parametrize(("width", "media"), [(400, "screen"), (760, "print")])
def test_the_front_page_fits_a_phone_and_paper(html, width, media):
    with browser.opened() as tab:
        tab.open(html, width, 900)
        tab.wait("typeof app !== 'undefined' && !!document.querySelector('.prose')")
        tab.call("Emulation.setEmulatedMedia", media=media)
        if media == "screen":
            tab.script("app.setView({hideNavbar: true})")
        box = "(({left, right}) => 0 <= left && right <= innerWidth)"
        tab.wait(f"{box}(document.querySelector('.prose').getBoundingClientRect())", 10)
        if media == "print":  # beyond the first page too
            assert tab.script("document.documentElement.scrollHeight") > 1000
