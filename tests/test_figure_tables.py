"""The figures that are tables: cells that are missing, verdicts of claims."""

from __future__ import annotations

import pandas as pd
from studies import overlaps, said, study

from dpmedbench import figures
from dpmedbench.figures import claims_verdicts, missing_cells, text_table
from dpmedbench.verdicts import SIGNS


def test_cells_left_out_and_missing_are_counted_by_reason():
    folders = [
        f"duke/{model}/fastdp/sigma{sigma}/fold0/seed0"
        for model in ("unet", "nested_unet")
        for sigma in (0.3, 1)
    ]
    given = {
        "left_out": {"fastDP is not installed": folders},
        "missing": {folder.replace("fastdp", "opacus"): "not started" for folder in folders[:3]},
    }
    figure = figures.draw("missing_cells", **given)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "fastDP is not installed 4 duke U-Net, Nested U-Net Fastdp σ = 0.3, σ = 1 Miss" in words
    assert "not started 3 duke" in words
    assert overlaps(figure) == []
    assert figures.numbers("missing_cells", **given) == "4 cells are left out, 3 are missing."


def test_nothing_left_out_or_missing_is_said():
    figure = figures.draw("missing_cells", left_out={}, missing={})
    assert said(figure).split().count("none") == 2


def test_hundreds_of_missing_cells_stay_on_a_page():
    missing = {
        f"duke/unet/mechanism_{k}/sigma{s}/fold0/seed{e}": f"stopped after epoch {e} " + "x " * 150
        for k in range(8)
        for s in range(1, 3)
        for e in range(30)
    }
    figure = figures.draw("missing_cells", left_out={}, missing=missing)
    assert figure.get_figheight() < 11
    assert f"and {30 - missing_cells.MOST} other reasons" in said(figure)
    assert overlaps(figure) == []


def test_each_verdict_has_a_sign_a_colour_and_a_word():
    verdicts = list(claims_verdicts.COLOURS)
    claims = pd.DataFrame(
        [
            {"id": f"bookkeeping.claim_{k}", "study": "bookkeeping", "claim": f"Claim {k}."}
            | {"finding": "word " * 60, "verdict": verdict}
            for k, verdict in enumerate([*verdicts, "not run"])
        ]
    )
    figure = figures.draw("claims_verdicts", claims=claims)
    found = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    for verdict, colour in claims_verdicts.COLOURS.items():
        assert found[f"{SIGNS[verdict]} {verdict}"] == colour
    assert "2 more" in found
    assert "Claim 3." not in found
    assert len(set(claims_verdicts.COLOURS.values())) == 4
    assert overlaps(figure) == []
    assert figures.numbers("claims_verdicts", claims=claims) == (
        "Of 5 claims and controls: 1 supported, 1 contradicted, 1 cannot be separated, 2 not run."
    )


def test_a_long_finding_keeps_the_bracket_that_says_of_how_many():
    bracket = "(4 settings, 5 runs)."
    claim = {"study": "bookkeeping", "claim": "A claim."} | {"verdict": "supported"}
    rows = pd.DataFrame([claim | {"finding": f"{'word ' * 60}{bracket}"}])
    words = said(figures.draw("claims_verdicts", claims=rows))
    assert f"word … {bracket}" in " ".join(words.split())
    for short in ("Without.", "With one (4 settings, 5 runs)."):
        rows = pd.DataFrame([claim | {"finding": short}])
        assert short in said(figures.draw("claims_verdicts", claims=rows))


def test_the_claims_of_a_run_are_drawn():
    from dpmedbench import claims

    table = figures.load(study("no_non_private").tables["claims"], None)
    figure = figures.draw("claims_verdicts", claims=table)
    assert len(table) == len(claims.CLAIMS)
    assert overlaps(figure) == []


def test_a_table_is_as_high_as_its_text():
    short, long = ([("a", "b")] * 2, [("a " * 60, "b")] * 2)
    heights = [
        text_table.figure(("x", "y"), rows, (1.0, 1.0))[0].get_figheight() for rows in (short, long)
    ]
    assert heights[1] > 2 * heights[0]
