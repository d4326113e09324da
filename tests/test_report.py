"""The report: its tables, its front page, in a browser, and of a run that did not end."""

import hashlib
import json
import os
from pathlib import Path

import browser
import pandas as pd
import pytest
from report_tables import (
    CLAIMS,
    COMPARISONS,
    NOT,
    PRIVACY,
    SUMMARY,
    TABLES,
    manifest,
    setting,
    value,
)

from dpmedbench import figures, report, unfinished
from dpmedbench.report import findings, html, pages, software


@pytest.fixture(params=report.PAGES)
def page(request, tmp_path):
    """A page as HTML, and what it was made of."""
    paths = {suffix: tmp_path / f"page.{suffix}" for suffix in ("html", "csv", "tex")}
    pages.write(request.param, TABLES, paths)
    return request.param, paths


def test_a_page_has_its_title_a_table_and_no_markup_of_its_data(page):
    name, paths = page
    text = paths["html"].read_text()
    assert report.PAGES[name].title in text
    assert "<td" in text
    assert "<faster>" not in text
    assert "http" not in text
    assert len(pd.read_csv(paths["csv"])) > 0


def test_claims_stand_under_their_study_with_a_verdict(tmp_path):
    found, numbers = pages.BUILDERS["claims"](CLAIMS)
    assert list(found) == [figures.STUDIES[s] for s in ("bookkeeping", "local_dp", "clipping")]
    assert next(iter(found.values()))["verdict"].to_list() == ["supported", "contradicted"]
    assert numbers is CLAIMS


def test_results_show_intervals_and_what_local_noise_spends():
    found, _ = pages.BUILDERS["results"](SUMMARY, PRIVACY)
    table = found["duke, U-Net"].set_index(["mechanism", "noise"])
    dice = "Dice without background"
    assert next(iter(table.index)) == ("Constant", "–")
    assert table.loc[("Non-private", "–"), dice] == "0.812 [0.792, 0.832]"
    assert table.loc[("Opacus flat", "σ = 1"), dice] == "0.300"
    assert table.loc[("Opacus flat", "σ = 1"), ["patients", "runs"]].to_list() == ["7", "1"]
    assert "patients" not in pages.BUILDERS["cost"](SUMMARY, PRIVACY)[0]["duke, U-Net"]
    assert table.loc[("Opacus flat", "σ = 1"), "epsilon"] == "8.25"
    spent = table["epsilon"]
    assert spent["Local laplace", "β = 0.5"] == "100,352 an image (2 a pixel)"
    assert (spent["Constant", "–"], spent["Non-private", "–"]) == ("–", "∞")
    assert html._numeric(spent)  # so that a click sorts 100,352 behind 8.25


@pytest.mark.skipif(browser.PATH is None, reason=browser.LACKING)
def test_a_table_is_sorted_by_click_or_key_and_as_wide_as_a_phone(tmp_path):
    spent = ["8.25", "100,352 an image (2 a pixel)", "∞", "0.5"]
    noise = ["σ = 10", "σ = 2", "–", "σ = 0.5"]
    rows = pd.DataFrame({"name": ["d", "a", "b", "c"], "noise": noise, "epsilon": spent})
    path = tmp_path / "page.html"
    path.write_text(html.page("title", "caption", {"": rows}))
    expected = {"name": "abcd", "noise": "cadb", "epsilon": "cdab"}
    with browser.opened() as tab:
        tab.open(path, width=390, mobile=True)
        tab.wait("!!document.querySelector('table.sortable')")
        assert tab.script("document.documentElement.clientWidth") == 390
        for column, (name, names) in enumerate(expected.items()):
            head = f"document.querySelectorAll('th')[{column}]"
            for found in (names, names[::-1]):
                act = "click()" if found == names else "dispatchEvent(key)"
                tab.script(f"key = new KeyboardEvent('keydown', {{key: 'Enter'}}); {head}.{act}")
                first = "[...document.querySelectorAll('td:nth-child(1)')]"
                assert tab.script(f"{first}.map(cell => cell.textContent).join('')") == found, name
                assert tab.script("document.querySelectorAll('th[aria-sort]').length") == 1
            assert tab.script(f"{head}.ariaSort") == "descending"


def test_results_leave_out_a_score_that_nobody_has():
    nothing = value(setting("non_private"), "boundary_mae", NOT)
    found, numbers = pages.BUILDERS["results"](
        pd.DataFrame([*SUMMARY.to_dict("records"), nothing]), PRIVACY
    )
    assert "boundary error (px)" not in found["duke, U-Net"]
    assert "boundary_mae" in set(numbers["metric"])


def test_accuracy_has_the_published_shape_and_the_published_numbers():
    found, _ = pages.BUILDERS["accuracy"](SUMMARY)
    best, last, published = found.values()
    assert list(best.columns) == [
        "dataset",
        "model",
        "part",
        "Constant",
        "Non-private",
        "Local laplace, β = 0.5",
    ]
    assert best["Constant"].to_list() == last["Constant"].to_list() == ["–", "62.50"]
    assert best["Non-private"].to_list() == ["99.50", "90.00"]
    assert last["Non-private"].to_list() == ["99.00", "80.00"]
    assert published["Original"].to_list() == ["99.76", "90.22", "98.39", "80.21"]


def test_the_rule_of_the_verdicts_is_said_whole():
    """What Holm's correction is for, and that both tests count."""
    page = report.PAGES["comparisons"].caption
    figure = " ".join(figures.catalog()["paired_differences"].caption.split())
    assert "for all of one dataset, network and noise, scores and times apart" in page
    assert "for all comparisons of one network and noise" in figure
    larger = "of a paired permutation test and of Student's of the interval"
    assert larger in page
    assert larger in figure


def test_a_run_without_classification_says_so(tmp_path):
    duke = SUMMARY[SUMMARY["dataset"] == "duke"]
    paths = {suffix: tmp_path / f"page.{suffix}" for suffix in ("html", "csv", "tex")}
    pages.write("accuracy", {"summary": duke}, paths)
    assert "Nothing to show" in paths["html"].read_text()
    assert paths["tex"].read_text() == ""


def test_the_front_page_names_the_best_of_each_noise_and_counts_claims():
    found = findings.find(TABLES, [])
    assert [(row["mechanism"], row["noise"]) for row in found["best"]] == [
        ("Constant", "–"),
        ("Non-private", "–"),
        ("Local laplace", "β = 0.5"),
        ("Bookkeeping", "σ = 0.5"),
        ("Opacus flat", "σ = 1"),
    ]
    of = [row["of"] for row in found["best"]]
    assert of == ["7 patients, 3 runs"] * 2 + ["7 patients, 1 run"] + [
        "7 patients, 3 runs", "7 patients, 1 run"
    ]  # fmt: skip
    spent = [row["epsilon"] for row in found["best"]]
    assert spent == ["–", "∞", "100,352 an image (2 a pixel)", "8.25", "8.25"]
    assert found["cost"] == [
        "duke, U-Net: 1.30 (Bookkeeping) to 1.80 (Opacus flat) times the step time of ordinary "
        "training."
    ]
    assert found["claims"] == {
        "supported": 1,
        "contradicted": 1,
        "cannot be separated": 1,
        "not run": 2,
    }
    controls = CLAIMS.assign(source="control of Section IX, not in the study")
    both = findings.find(TABLES | {"claims": pd.concat([CLAIMS, controls])}, [])
    assert both["claims"] == found["claims"]
    json.dumps(found)


def compared(verdicts, more=()):
    """The comparisons of the best mechanism at σ = 0.5 with others, by their verdict."""
    row = COMPARISONS.iloc[0].to_dict()
    names = ("opacus_flat", *more)
    pairs = [("bookkeeping", name) for name in names] + [("non_private", "bookkeeping")]
    return pd.DataFrame(
        [
            row | {"first": first, "second": second, "verdict": verdict}
            for (first, second), verdict in zip(pairs, verdicts, strict=True)
        ]
    )


UNCLEAR = "cannot be separated"
OTHERS = tuple(f"other_{number}" for number in range(8))


@pytest.mark.parametrize(
    ("comparisons", "others"),
    [
        (COMPARISONS, "none"),  # the second row is of times
        (COMPARISONS[:0], "–"),
        (compared([UNCLEAR, "lower"]), "Opacus flat"),
        (compared([UNCLEAR, UNCLEAR]), "Opacus flat, Non-private"),
        (compared(["single runs", "single runs"]), "single runs"),
        (compared(["lower", "single runs"]), "Non-private"),
        (compared([UNCLEAR] * 9 + ["lower"], OTHERS), "9 others"),
    ],
)
def test_the_front_page_names_what_is_not_separated_from_the_best(comparisons, others):
    best = findings.find(TABLES | {"comparisons": comparisons}, [])["best"]
    named = {row["noise"]: row["others"] for row in best if row["dataset"] == "duke"}
    assert named == {"–": "–", "β = 0.5": "–", "σ = 0.5": others, "σ = 1": "–"}


def test_the_cost_of_a_mechanism_is_the_mean_over_its_noise():
    ratio = SUMMARY[SUMMARY["metric"] == "step_seconds_ratio"].iloc[[0] * 4]
    ratio = ratio.assign(privacy=[f"sigma{n}" for n in range(4)], value=[1.75, 1.06, 2.5, 1.7])
    found = findings.find(TABLES | {"summary": ratio}, [])
    assert found["cost"] == ["duke, U-Net: 1.75 times the step time of ordinary training."]


def test_what_the_cells_were_trained_with_is_one_line():
    cells = [manifest("bookkeeping"), manifest("none", opacus="1.5.0")]
    assert software.of_cells(cells) == {
        "words": "Python 3.11.7, torch 2.13.0+cpu, Opacus 1.6.0, commit aaaaaaa, "
        "on AMD EPYC, 2 threads",
        "mixed": [],
    }


def test_a_mixture_of_software_is_named_with_its_cells():
    cells = [manifest(), manifest("fastdp", 40 * "b" + "-dirty", fastDP="2.1"), manifest("none")]
    cells += [manifest("none", commit=None, torch="2.12.0") | {"device": "H100"}]
    found = software.of_cells(cells)
    assert found["mixed"] == ["torch", "commit", "device"]
    assert found["words"] == (
        "Python 3.11.7, torch 2.13.0+cpu (3 cells) and 2.12.0 (1 cell), Opacus 1.6.0, fastDP 2.1, "
        "commit aaaaaaa (2 cells) and bbbbbbb-dirty (1 cell) and unknown (1 cell), "
        "on AMD EPYC, 2 threads (3 cells) and H100 (1 cell)"
    )


def test_the_running_study_comes_first_among_the_published():
    titles = [report.FINDINGS, *figures.STUDIES.values(), figures.BEYOND, report.SCANS]
    order = sorted(titles, key=lambda title: report.heading(title, "clipping"))
    assert order[0] == report.FINDINGS
    assert order[1] == figures.STUDIES["clipping"]
    assert order[-2:] == [figures.BEYOND, report.SCANS]


SETTINGS, CODE = {"training": {"epochs": 3, "betas": (1, 2)}}, "digest"
LINE = "duke unet opacus_flat: {}/50, 3 min left; loss 1.0\n"


SENTENCE = "loss: found NaN at epoch 3, expected a number; lower the learning rate"
TRACE = "Traceback (most recent call last):\n  line\nKeyError: 'x'\nto report this: do so\n"


@pytest.mark.parametrize(
    ("step", "log", "why"),
    [
        ("train", None, "training not started"),
        ("train", "", "training started, not finished"),
        (
            "train",
            f"one\nerror in train: {SENTENCE}\nto report this: do so\n",
            f"training failed: {SENTENCE}",
        ),
        ("train", TRACE, "training failed: KeyError: 'x'"),
        ("train", LINE.format(11) + LINE.format(12), "training stopped after epoch 12 of 50"),
        ("predict", None, "trained; test not started"),
        ("predict", "error in segment: masks\n", "trained; test failed: masks"),
    ],
)
def test_why_a_cell_is_missing(tmp_path, step, log, why):
    if step == "predict":
        _train(tmp_path)
    assert _why(tmp_path, {} if log is None else {step: log}) == why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        (
            {"settings": {"training": {"epochs": 4, "betas": [1, 2]}}},
            "trained with other settings than the configuration has now: found training.epochs 4, "
            "expected 3",
        ),
        (
            {"settings": {"training": {"epochs": 3, "betas": [1, 2], "cosine": None}}},
            "trained with other settings than the configuration has now: found training.cosine "
            "null, expected nothing",
        ),
        ({"code": "other"}, "trained by other code"),
    ],
)
def test_a_whole_cell_counts_if_it_is_what_is_asked_for(tmp_path, change, why):
    _train(tmp_path, **change)
    for name in ("scores.parquet", "masks.h5"):
        (tmp_path / name).touch()
    found = _why(tmp_path, {})
    assert found is None if why is None else found.startswith(why)


def test_what_is_newer_than_what_was_made_of_it_makes_a_cell_missing(tmp_path):
    data, weights = tmp_path / "duke.h5", tmp_path / "model.safetensors"
    _train(tmp_path)
    for name in (data.name, "scores.parquet", "masks.h5"):
        (tmp_path / name).touch()
    for age, path in enumerate((tmp_path / "masks.h5", tmp_path / "scores.parquet", weights, data)):
        os.utime(path, (1000 - age, 1000 - age))
    assert _why(tmp_path, {}) is None
    os.utime(data)
    assert _why(tmp_path, {}) == "trained before its data or splits changed"
    data.unlink()  # to save room
    assert _why(tmp_path, {}) is None
    splits = tmp_path / "duke.splits.csv"
    splits.write_text("edited")
    assert _why(tmp_path, {}) == "trained before its data or splits changed"
    splits.write_text("")  # as it was, at another time
    assert _why(tmp_path, {}) is None
    os.utime(weights)
    assert _why(tmp_path, {}) == "trained; tested with earlier weights"
    (tmp_path / "manifest.json").write_text("{}")
    assert _why(tmp_path, {}).startswith("trained with other settings")


def test_of_the_jobs_that_failed_the_first_are_named_with_their_sentences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = {
        "figures/my-data.log": "error in figures_my-data: a.h5: found none, expected one\n",
        "train/mine/sigma0.5/seed0.log": "1/9, 2 s left\nTraceback (x):\n  y\nValueError: z\n",
        "predict/a.log": "error in segment: a.h5: no room\n",
        "predict/b.log": "done\n",
    }
    for name, text in said.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    mine, cell, *group = map(Path, said)
    assert unfinished.failures([[cell], [mine], group]) == [
        "figures/my-data.log: failed: a.h5: found none, expected one",
        "predict/a.log: failed: a.h5: no room",
        "train/mine/sigma0.5/seed0.log: failed: ValueError: z",
    ]
    killed = [Path("predict/b.log"), Path("predict/c.log")]
    assert unfinished.failures([killed * 9, [cell]])[0].startswith("train/mine/sigma0.5/seed0.log")
    assert unfinished.failures([killed]) == [
        "predict/b.log: started, not finished",
        "predict/c.log: not started",
    ]
    lines = unfinished.failures([[mine]] * 12)
    assert len(lines) == 11
    assert lines[-1] == "and 2 more"


def _train(folder, settings=None, code=CODE):
    for name in unfinished.FILES["train"]:
        (folder / name).touch()
    manifest = {
        "settings": settings or json.loads(json.dumps(SETTINGS)),
        "code": code,
        "data": {"splits": hashlib.sha256(b"").hexdigest()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _why(folder, logs):
    paths = {step: folder / f"{step}.log" for step in unfinished.FILES}
    for step, text in logs.items():
        paths[step].write_text(text)
    data, splits = [folder / "duke.h5"], folder / "duke.splits.csv"
    return unfinished.why(folder, "segmentation", SETTINGS, CODE, paths, data, splits)
