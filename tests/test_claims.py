"""The published claims: each verdict of each claim, forced by made-up results."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest

from dpmedbench import claims, evaluation, results
from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTRADICTED, NOT_RUN, SUPPORTED, UNCLEAR

RUNS = 4
SIGMAS = (0.3, 0.5, 0.7, 1.0)
WAYS = {
    "ordinary": {"engine": "none"},
    "opacus": {"engine": "opacus", "mode": "hooks", "clipping": "abadi"},
    "book_keeping": {"engine": "bookkeeping", "mode": "mix_opt", "clipping": "automatic"},
    "automatic": {"engine": "opacus", "mode": "hooks", "clipping": "automatic"},
    "sparsified": {"engine": "opacus", "mode": "hooks", "clipping": "abadi", "sparsification": 0.9},
    "local": {"engine": "local", "mode": "laplace"},
    "scalar": {"engine": "local", "mode": "scalar_per_image"},
}
COUNTS = {"images": 1, "present": 1, **dict.fromkeys(evaluation.DISTANCES.values(), 0)}
METRICS = (
    *("train_loss", "val_loss", "mean_val_loss", "train_accuracy", "val_pixel_accuracy"),
    *("step_seconds", "epoch_seconds", "peak_bytes"),
)


def cell(way, run, level=None, model="unet", dataset="duke", **values):
    """A row of the cells; its mechanism has a name that says nothing."""
    label = {"local": "beta", "scalar": "beta"}.get(way, "sigma")
    place = {
        "dataset": dataset,
        "model": model,
        "mechanism": f"way_{list(WAYS).index(way)}",
        "privacy": "none" if level is None else f"{label}{level:g}",
        "fold": run % 2,
        "seed": run // 2,
    }
    traits = dict.fromkeys(results.TRAITS, "none")
    traits |= {"sparsification": math.nan, "target_epsilon": math.nan, "beta": math.nan}
    traits |= {"noise_multiplier": 0.0, "noise_schedule": None}
    if level is not None:
        traits["beta" if label == "beta" else "noise_multiplier"] = level
    private = label == "sigma" and level is not None
    traits["noise_schedule"] = "constant" if private else None
    numbers = dict.fromkeys(METRICS, 1.0)
    numbers |= {"epsilon": 10.0 if private else math.inf, "epochs": 100, "batch_size": 10}
    numbers["device"] = "made-up device"
    return place | traits | WAYS[way] | numbers | values


def made(cells, scores=None, classified=False):
    """Results of `cells`; `scores` has the test score of each (`classified`: fifths)."""
    segmented, predicted = [], []
    for row, score in zip(cells, scores or [], strict=bool(scores)):
        place = {name: row[name] for name in results.CELL} | {"predictor": "model"}
        for patient in range(20):
            if not classified:
                dice = dict.fromkeys(evaluation.SEGMENTED, score + 0.01 * (patient % 3 - 1))
                segmented += [
                    place | {"patient": f"p{patient}", "class": c} | dice | COUNTS for c in range(2)
                ]
                continue
            for image in range(10):
                label, right = image % 2, image // 2 < round(5 * score)
                answer = label if right else 1 - label
                images = {"patient": f"p{patient}", "record": 10 * patient + image, "label": label}
                sure = {"predicted": answer, "probability_0": 1.0 - answer, "probability_1": answer}
                predicted.append(place | images | sure)
    empty = pd.DataFrame(columns=[*results.CELL, "predictor"])
    return results.Results(
        pd.DataFrame(cells),
        pd.DataFrame(segmented) if segmented else empty,
        pd.DataFrame(predicted) if predicted else empty,
    )


def pair(first, second, metric, base=0.0, levels=SIGMAS, **places):
    """Of `second`, at each level and run, `metric` is `base` + the effect; of `first` it is 1."""

    def of(effect):
        found = []
        for run in range(RUNS):
            found += [
                cell(first, run, None if first == "ordinary" else level, **places)
                for level in (levels[:1] if first == "ordinary" else levels)
            ]
            found += [
                cell(second, run, level, **places | {metric: base + effect(run)})
                for level in levels
            ]
        return made(found)

    return of


def networks(metric, base=0.0):
    """`metric` of Nested U-Net is `base` + the effect; of U-Net it is 1."""

    def of(effect):
        return made(
            [cell("automatic", run, level) for run in range(RUNS) for level in SIGMAS]
            + [
                cell("automatic", run, level, "nested_unet", **{metric: base + effect(run)})
                for run in range(RUNS)
                for level in SIGMAS
            ]
        )

    return of


def rising(way, metric, slope=lambda level, effect: effect * level):
    """`metric` has the effect as slope over the noise."""

    def of(effect):
        return made(
            [
                cell(way, run, level, **{metric: slope(level, effect(run))})
                for run in range(RUNS)
                for level in SIGMAS
            ]
        )

    return of


def scored(way, levels=(1, 2, 4)):
    """The balanced accuracy falls by the effect at each level."""

    def of(effect):
        cells = [cell(way, run, level) for run in range(RUNS) for level in levels]
        scores = [
            0.4 + effect(run) * (rank - 1) for run in range(RUNS) for rank in range(len(levels))
        ]
        return made(cells, scores, classified=True)

    return of


def best_automatic(effect):
    """One noise level is better than the others by 1; its validation loss is 1 + the effect."""
    cells = []
    for run in range(RUNS):
        cells.append(cell("ordinary", run))
        cells.append(cell("automatic", run, 0.5, val_loss=1 + effect(run)))
        cells.append(cell("automatic", run, 1.0, val_loss=2 + effect(run)))
    return made(cells)


def sparse(effect):
    """Ordinary training has loss 1, automatic clipping 3, sparsification 3 + the effect."""
    cells = []
    for run in range(RUNS):
        cells.append(cell("ordinary", run))
        cells.append(cell("automatic", run, 1.0, train_loss=3.0))
        cells.append(cell("sparsified", run, 1.0, train_loss=3 + effect(run)))
    return made(cells)


def published_epsilon(effect):
    """At noise multiplier 0.3, 100 epochs: the effect times 500; other lengths do not count."""
    return made(
        [cell("opacus", run, 0.3, epsilon=500 * effect(run)) for run in range(RUNS)]
        + [cell("book_keeping", run, 0.3, epsilon=1.0, epochs=7) for run in range(RUNS)]
    )


def falling_epsilon(effect):
    """Epsilon at each noise is the effect times that at the one before; seeds are averaged."""
    return made(
        [
            cell("opacus", run, level, dataset=f"data_{run}", epsilon=100 * effect(run) ** rank)
            for run in range(RUNS)
            for rank, level in enumerate(SIGMAS)
        ]
    )


def fastest_of_nested(effect):
    """Noise 1 takes the effect times the others' seconds."""
    cells = []
    for run in range(RUNS):
        same = {"run": run, "model": "nested_unet"}
        cells.append(cell("ordinary", **same))
        cells += [cell("automatic", level=level, **same) for level in SIGMAS[:3]]
        cells.append(cell("automatic", level=1.0, epoch_seconds=effect(run), **same))
    return made(cells)


def on_patients(effect):
    """The Dice of automatic clipping is 0.5 + the effect, that of ordinary training 0.5."""
    cells = [cell("ordinary", run) for run in range(RUNS)]
    cells += [cell("automatic", run, 1.0) for run in range(RUNS)]
    return made(cells, [0.5] * RUNS + [0.5 + effect(run) for run in range(RUNS)])


def local_and_private(effect):
    """The accuracy of DP-SGD is 0.4, that of local noise 0.4 + the effect; scalars do not count."""
    cells = [cell("opacus", run, 2) for run in range(RUNS)]
    cells += [cell("local", run, 2) for run in range(RUNS)]
    cells += [cell("scalar", run, 2) for run in range(RUNS)]
    scores = [0.4] * RUNS + [0.4 + effect(run) for run in range(RUNS)] + [1.0] * RUNS
    return made(cells, scores, classified=True)


# claim: what makes the results, the effect that supports it, one that contradicts it, and two
# that take turns over the runs, so that it cannot be decided
CASES = {
    "bookkeeping.budget": (pair("opacus", "book_keeping", "epsilon"), 5.0, 10.0, (9.0, 11.0)),
    "bookkeeping.budget_reached": (published_epsilon, 1.0, 0.5, (0.8, 1.2)),
    "bookkeeping.time": (pair("book_keeping", "opacus", "epoch_seconds"), 1.5, 0.8, (0.5, 2.0)),
    "bookkeeping.time_noise": (
        rising("opacus", "epoch_seconds", lambda level, effect: math.exp(effect * level)),
        *(0.5, 0.0, (-0.5, 0.5)),
    ),
    "bookkeeping.training_loss_noise": (rising("opacus", "train_loss"), 0.5, -0.5, (-0.5, 0.5)),
    "bookkeeping.validation_loss_noise": (
        rising("book_keeping", "val_loss"),
        *(0.5, -0.5, (-0.5, 0.5)),
    ),
    "bookkeeping.validation_loss": (
        pair("book_keeping", "opacus", "mean_val_loss", 1.0),
        *(0.2, -0.2, (-0.2, 0.2)),
    ),
    "bookkeeping.loss_umn": (
        pair("ordinary", "book_keeping", "train_loss", dataset="umn"),
        *(1.02, 1.4, (0.7, 1.4)),
    ),
    "local_dp.training_accuracy": (
        rising("local", "train_accuracy", lambda level, effect: effect * math.log2(level)),
        *(-0.05, 0.05, (-0.05, 0.05)),
    ),
    "local_dp.test_accuracy": (scored("local"), 0.0, -0.2, (-0.2, 0.2)),
    "local_dp.noise": (scored("opacus"), -0.2, 0.2, (-0.2, 0.2)),
    "local_dp.local_better": (local_and_private, 0.2, -0.2, (-0.2, 0.2)),
    "engines.time": (pair("ordinary", "book_keeping", "step_seconds"), 1.1, 1.5, (1.0, 1.5)),
    "engines.memory": (pair("ordinary", "book_keeping", "peak_bytes"), 1.1, 1.5, (1.0, 1.5)),
    "engines.faster": (pair("book_keeping", "opacus", "step_seconds"), 1.5, 0.8, (0.5, 2.0)),
    "engines.leaner": (pair("book_keeping", "opacus", "peak_bytes"), 1.5, 0.8, (0.5, 2.0)),
    "engines.opacus_overhead": (pair("ordinary", "opacus", "step_seconds"), 2.4, 4.0, (1.5, 4.0)),
    "clipping.training_loss": (
        pair("ordinary", "automatic", "train_loss", 1.0),
        *(-0.2, 0.2, (-0.2, 0.2)),
    ),
    "clipping.validation_loss_unet": (best_automatic, -0.2, 0.2, (-0.2, 0.2)),
    "clipping.validation_loss_nested": (
        pair("ordinary", "automatic", "val_loss", 1.0, model="nested_unet"),
        *(0.2, -0.2, (-0.2, 0.2)),
    ),
    "clipping.sparsification_loss": (sparse, 0.2, -0.2, (-0.2, 0.2)),
    "clipping.budget_complexity": (networks("epsilon"), 12.0, 10.0, (9.0, 12.0)),
    "clipping.budget_noise": (falling_epsilon, 0.5, 1.0, (0.5, 1.5)),
    "clipping.time_nested": (networks("epoch_seconds"), 3.0, 0.8, (0.5, 2.0)),
    "clipping.time_automatic": (fastest_of_nested, 0.8, 1.2, (0.5, 2.0)),
    "clipping.accuracy_nested": (networks("val_pixel_accuracy", 1.0), 0.1, -0.1, (-0.1, 0.1)),
    "clipping.utility": (on_patients, 0.0, -0.1, (-0.1, 0.1)),
}
BY_ID = {claim.id: claim for claim in claims.CLAIMS}


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        (WAYS["ordinary"], {"ordinary"}),
        (WAYS["opacus"], {"opacus", "rivals", "dp_sgd"}),
        (WAYS["opacus"] | {"mode": "ghost"}, {"rivals", "dp_sgd"}),
        (WAYS["book_keeping"], {"book_keeping"}),
        (WAYS["book_keeping"] | {"clipping": "abadi"}, {"book_keeping", "dp_sgd"}),
        (WAYS["book_keeping"] | {"engine": "fastdp", "mode": "ghost"}, {"book_keeping"}),
        (WAYS["book_keeping"] | {"mode": "ghost_clip"}, {"rivals"}),
        (WAYS["book_keeping"] | {"mode": "fast_gradient_clip"}, {"rivals"}),
        (WAYS["automatic"], {"automatic", "rivals"}),
        (WAYS["sparsified"], {"sparsified"}),
        (WAYS["local"], {"local"}),
        (WAYS["scalar"], set()),
        *(
            (WAYS[way] | {"noise_schedule": "linear"}, set())
            for way in ("opacus", "book_keeping", "automatic", "sparsified")
        ),
    ],
)
def test_ways_are_told_apart_by_what_they_are(traits, expected):
    cells = pd.DataFrame([cell("ordinary", 0) | {"mode": "autograd"} | traits])
    select = {name: way for name, way in vars(ways).items() if inspect.isfunction(way)}
    for name in ("_dense", "_steady", "with_noise"):
        del select[name]
    assert {name for name, way in select.items() if len(way(cells))} == expected


def test_every_claim_has_its_case():
    assert set(CASES) == set(BY_ID)
    assert len(BY_ID) == len(claims.CLAIMS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("verdict", [SUPPORTED, CONTRADICTED, UNCLEAR])
def test_each_verdict_of_each_claim(name, verdict):
    make, supporting, contradicting, undecided = CASES[name]
    effects = {
        SUPPORTED: lambda run: supporting,
        CONTRADICTED: lambda run: contradicting,
        UNCLEAR: lambda run: undecided[run % 2],
    }
    row = BY_ID[name].row(make(effects[verdict]))
    assert row["verdict"] == verdict, row
    assert row["low"] <= row["value"] <= row["high"]
    assert "{" not in row["finding"]
    assert row["finding"].endswith(").")


@pytest.mark.parametrize("name", CASES)
def test_a_claim_without_its_cells_is_not_run(name):
    """Neither by another mechanism, nor by one of two that it takes, nor on another dataset."""
    other = {"engine": "opacus", "mode": "ghost", "clipping": "adaptive"}
    cells = [cell("opacus", run, 0.4, "resnet18", "other") | other for run in range(2)]
    row = BY_ID[name].row(made(cells))
    assert row["verdict"] == NOT_RUN
    assert row["finding"] == ""
    assert math.isnan(row["value"])


@pytest.mark.parametrize(
    "name",
    [
        *("bookkeeping.budget", "bookkeeping.time_noise", "bookkeeping.training_loss_noise"),
        *("bookkeeping.validation_loss_noise", "clipping.budget_complexity"),
        *("clipping.budget_noise", "local_dp.noise"),
    ],
)
def test_noise_that_follows_from_epsilon_is_no_noise_level(name):
    """Of one epsilon each fold has a noise of its own, and all epsilons are equal as wanted."""
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    calibrated = found.cells.assign(target_epsilon=8.0)
    given = results.Results(calibrated, found.segmented, found.predicted)
    assert BY_ID[name].row(given)["verdict"] == NOT_RUN


def test_noise_of_a_schedule_is_not_that_of_its_name():
    make = CASES["bookkeeping.budget"][0]
    found = make(lambda run: 5.0)
    private = found.cells["mechanism"] == "way_2"
    found.cells.loc[private, "noise_schedule"] = "exponential"
    assert BY_ID["bookkeeping.budget"].row(found)["verdict"] == NOT_RUN


TIMED = [
    *("bookkeeping.time", "engines.time", "engines.memory", "engines.faster", "engines.leaner"),
    *("engines.opacus_overhead", "clipping.time_nested", "clipping.time_automatic"),
]


@pytest.mark.parametrize("name", TIMED)
def test_times_and_memory_are_compared_on_one_device(name):
    make, supporting, *_ = CASES[name]
    found = make(lambda run: supporting)
    expected = BY_ID[name].row(found)["value"]
    measured = ["step_seconds", "epoch_seconds", "peak_bytes"]
    found.cells.loc[found.cells.index[-1], ["device", *measured]] = "another", 99.0, 99.0, 99.0
    assert BY_ID[name].row(found)["value"] == pytest.approx(expected)
    found.cells["device"] = [f"device {n}" for n in range(len(found.cells))]
    assert BY_ID[name].row(found)["verdict"] == NOT_RUN


def test_a_slope_of_times_has_a_level_for_each_device():
    found = CASES["bookkeeping.time_noise"][0](lambda run: 0.0)
    slow = found.cells["noise_multiplier"] > 0.6
    found.cells.loc[slow, ["device", "epoch_seconds"]] = "another", 9.0
    row = BY_ID["bookkeeping.time_noise"].row(found)
    assert row["value"] == pytest.approx(0, abs=1e-9)


def test_patients_of_two_datasets_are_different_ones():
    names = ("duke", "umn")
    parts = [on_patients(lambda run: 0.1 * run) for _ in names]
    for name, part in zip(names, parts, strict=True):
        part.cells["dataset"] = part.segmented["dataset"] = name
    ease = parts[0].segmented["patient"].str[1:].astype(int) / 100
    for part in parts:
        automatic = part.segmented["mechanism"] == "way_3"
        part.segmented["dice"] += np.where(automatic, ease, 0)
    cells, segmented, predicted = (
        pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("cells", "segmented", "predicted")
    )
    one = BY_ID["clipping.utility"].row(results.Results(cells, segmented, predicted))
    renamed = segmented.assign(patient=segmented["dataset"] + segmented["patient"])
    other = BY_ID["clipping.utility"].row(results.Results(cells, renamed, predicted))
    assert (one["low"], one["high"]) == pytest.approx((other["low"], other["high"]), abs=1e-12)


def test_a_setting_counts_once_however_many_runs_and_patients_it_has():
    frame = pd.DataFrame(
        {"setting": [0, 0, 0, 0, 1], "run": [0, 0, 0, 1, 0], "effect": [1.0, 1, 1, 2, 4.5]}
    )
    frame["patient"] = [0, 1, 2, 3, 4]
    assert base.mean(frame, frame["effect"]).value == pytest.approx(3.0)


def test_the_fastest_other_setting_may_be_another_one_in_each_run():
    """The mean is over the runs, whichever setting was the fastest."""
    cells = []
    for run in range(3):
        same = {"run": run, "model": "nested_unet"}
        cells.append(cell("ordinary", **same, epoch_seconds=1.0 if run else 9.0))
        cells.append(cell("automatic", level=0.5, **same, epoch_seconds=2.0))
        cells.append(cell("automatic", level=1.0, **same, epoch_seconds=4.0))
    row = BY_ID["clipping.time_automatic"].row(made(cells))
    assert row["value"] == pytest.approx((2 * 4 * 4) ** (1 / 3))
    assert "1 setting, 3 runs" in row["finding"]


def test_the_table_has_all_claims():
    table = claims.table(made([cell("ordinary", 0)]))
    assert list(table) == [
        *("id", "study", "source", "claim", "statistic", "finding", "value", "low", "high"),
        "verdict",
    ]
    assert set(table["study"]) == {"bookkeeping", "local_dp", "engines", "clipping"}
    assert (table["verdict"] == NOT_RUN).all()
    assert table["claim"].is_unique
    assert table[["source", "claim", "statistic"]].map(len).gt(5).all(axis=None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, SUPPORTED),
        (-0.2, -0.1, CONTRADICTED),
        (-0.1, 0.1, UNCLEAR),
        (0.9, 1.2, UNCLEAR),
        (1.0, 1.2, CONTRADICTED),
        (-0.1, 0.0, CONTRADICTED),
        (math.nan, math.nan, UNCLEAR),
    ],
)
def test_an_interval_is_held_against_the_claimed_range(low, high, verdict):
    estimate = base.Estimate(0.0, low, high, "")
    assert base.judge(estimate, 0.0, 1.0) == verdict
    contrary = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, UNCLEAR: UNCLEAR}[verdict]
    assert base.conclude("{}.", estimate, 0.0, 1.0, contrary=True).verdict == contrary


def test_single_runs_are_judged_over_settings_and_say_so():
    make = CASES["bookkeeping.time"][0]
    single = made(
        [
            row
            for row in make(lambda run: 1.5).cells.to_dict("records")
            if not row["fold"] + row["seed"]
        ]
    )
    row = BY_ID["bookkeeping.time"].row(single)
    assert (
        row["finding"] == "Opacus takes 1.50 [1.50, 1.50] times as long (4 settings, single runs)."
    )
    assert row["verdict"] == SUPPORTED


def test_one_pair_decides_nothing():
    cells = [cell("opacus", 0, 1.0, epoch_seconds=9.0), cell("book_keeping", 0, 1.0)]
    row = BY_ID["bookkeeping.time"].row(made(cells))
    assert row["verdict"] == UNCLEAR
    assert row["value"] == pytest.approx(9)
    assert row["finding"].endswith("(1 setting, single runs, no interval).")


def test_a_mean_is_over_runs_and_patients():
    found = on_patients(lambda run: 0.1 * run)
    row = BY_ID["clipping.utility"].row(found)
    assert row["value"] == pytest.approx(0.15)
    assert 0 <= row["low"] < 0.1
    assert "4 runs" in row["finding"]
    assert np.isfinite(row["high"])
