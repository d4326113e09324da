"""Intervals, paired tests and slopes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from dpmedbench import means, statistics


def crossed(runs, patients, seed, run_sd=0.02, patient_sd=0.05, noise_sd=0.02):
    """A row a run and patient, with an effect of each; the true mean is 0."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, patient_sd, patients)
    run, patient = np.divmod(np.arange(runs * patients), patients)
    values = (effects + rng.normal(0, noise_sd, effects.shape)).ravel()
    return pd.DataFrame({"run": run, "patient": patient, "value": values})


@pytest.mark.parametrize(
    ("runs", "patients", "run_sd", "patient_sd"),
    [
        (2, 1, 0.05, 0.0),
        (3, 2, 0.05, 0.02),
        (3, 12, 0.02, 0.05),
        (3, 30, 0.05, 0.02),
        (5, 30, 0.02, 0.05),
        (8, 60, 0.03, 0.03),
    ],
)
def test_intervals_cover_the_mean_of_other_patients_and_runs(runs, patients, run_sd, patient_sd):
    covered, width = 0, 0.0
    for seed in range(200):
        frame = crossed(runs, patients, seed, run_sd, patient_sd)
        value, low, high = statistics.mean_interval(frame, "value", ["patient", "run"])
        assert low <= value <= high
        covered += low <= 0 <= high
        width += (high - low) / 200
    # of 200 draws of probability 0.95 fewer than 0.9 succeed once in 500 times
    assert covered / 200 >= 0.9
    ideal = math.sqrt(run_sd**2 / runs + patient_sd**2 / patients)
    few = min(n for n in (runs, patients) if n > 1)
    assert width < 2.2 * stats.t.ppf(0.975, few - 1) * ideal


def test_patients_alone_would_not_cover():
    frames = [crossed(3, 30, seed, run_sd=0.05, patient_sd=0.02) for seed in range(100)]
    ends = [statistics.mean_interval(frame, "value", ["patient"])[1:] for frame in frames]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.6


def test_the_largest_of_many_means_is_above_0_by_luck_alone_once_in_forty_times():
    rng = np.random.default_rng(4)
    lucky = 0
    for _ in range(400):
        frame = pd.DataFrame({"setting": np.repeat(range(9), 3), "value": rng.normal(size=27)})
        value, low, high = statistics.largest_mean(frame, "value", "setting")
        assert value == pytest.approx(frame.groupby("setting")["value"].mean().max())
        assert low < value < high
        lucky += low > 0
    # that of `mean_interval`, of the chosen one as if it had been alone, is in half of them
    assert lucky / 400 <= 0.05
    value, low, high = statistics.largest_mean(frame.iloc[:1], "value", "setting")
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_largest_mean_is_as_uncertain_as_any_that_may_be_it():
    """It is below 0 only where all are; it is above where a single one clearly is."""
    wide = [0] * 3 + [1] * 3, [-0.010, -0.011, -0.012, 0.15, -0.20, 0.0]
    alone = [0] * 4 + [1], [0.050, 0.051, 0.052, 0.053, 0.06]
    found = [
        statistics.largest_mean(pd.DataFrame({"setting": s, "value": v}), "value", "setting")
        for s, v in (wide, alone)
    ]
    assert found[0][0] == pytest.approx(-0.011)
    assert found[0][2] > 0.1
    assert found[1][0] == pytest.approx(0.06)
    assert 0.045 < found[1][1] < 0.0515
    assert found[1][2] == math.inf


def test_rows_of_a_patient_are_no_further_patients():
    frame = crossed(3, 8, 1)
    twice = pd.concat([frame, frame])
    once, again = (statistics.mean_interval(f, "value", ["patient", "run"]) for f in (frame, twice))
    assert again == pytest.approx(once, rel=1e-12)


def folds(sizes=(5, 2, 3), effects=(-0.1, -0.4, -0.4)):
    """A row a patient, each in one fold alone."""
    run = np.repeat(range(len(sizes)), sizes)
    values = np.repeat(effects, sizes)
    return pd.DataFrame({"run": run, "patient": range(len(run)), "value": values})


def test_a_run_counts_once_however_many_patients_it_has():
    value, low, high = statistics.mean_interval(folds(), "value", ["patient", "run"])
    assert value == pytest.approx(-0.3, abs=1e-12)  # of all rows together it is -0.25
    assert low < value < high


@pytest.mark.parametrize("drawn", [("patient", "run"), ("run",), ("setting", "patient")])
def test_tries_are_means_of_means_as_the_mean_is(drawn, monkeypatch):
    rng = np.random.default_rng(2)
    frame = pd.concat([folds(), crossed(4, 6, 1)], keys=["a", "b"], names=["setting"])
    frame = frame.reset_index("setting").sample(frac=0.8, random_state=3)
    levels = ["patient", "run", "setting"]
    seen = {}
    monkeypatch.setattr(
        statistics,
        "interval",
        lambda statistic, units, _: (seen.update(of=statistic, units=units) or math.nan,) * 2,
    )
    statistics.mean_interval(frame, "value", levels, dict(zip(drawn, drawn, strict=True)))
    counts = [rng.integers(0, 3, (7, len(kind))).astype(float) for kind in seen["units"]]
    found = seen["of"](*counts)
    codes = {level: pd.factorize(frame[level], sort=True)[0] for level in levels}
    for draw in range(7):
        weight = {level: np.ones(codes[level].max() + 1) for level in levels}
        weight |= {level: part[draw] for level, part in zip(drawn, counts, strict=True)}
        of_settings = []
        for setting in range(2):
            of_runs = []
            for run in range(codes["run"].max() + 1):
                here = (codes["setting"] == setting) & (codes["run"] == run)
                each = weight["patient"][codes["patient"][here]]
                if each.sum():
                    mean = np.average(frame.loc[here, "value"], weights=each)
                    of_runs.append((mean, weight["run"][run]))
            if total := sum(w for _, w in of_runs):
                mean = sum(m * w for m, w in of_runs) / total
                of_settings.append((mean, weight["setting"][setting]))
        total = sum(w for _, w in of_settings)
        expected = sum(m * w for m, w in of_settings) / total if total else math.nan
        assert found[draw] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_an_interval_over_runs_alone_is_student_s(confidence):
    values = np.array([0.3, 0.5, 0.1, 0.45])
    frame = pd.DataFrame({"run": range(4), "value": values})
    expected = stats.t.interval(confidence, 3, values.mean(), stats.sem(values))
    found = statistics.mean_interval(frame, "value", ["run"], confidence=confidence)
    assert found[1:] == pytest.approx(expected)


def test_the_p_of_a_mean_is_that_of_its_interval():
    values = np.array([0.3, 0.5, 0.1, 0.45])
    frame = pd.DataFrame({"run": range(4), "value": values})
    p = statistics.mean_test(frame, "value", ["run"], {"run": "run"})
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    both = {"patient": "patient", "run": "run"}
    frame = crossed(3, 8, 1).assign(value=lambda f: f["value"] + 0.05)
    p = statistics.mean_test(frame, "value", ["patient", "run"], both)
    ends = statistics.mean_interval(frame, "value", ["patient", "run"], both, 1 - p)[1:]
    assert min(abs(end) for end in ends) == pytest.approx(0, abs=1e-9)
    for constant, expected in ((0.0, 1.0), (0.5, 0.0)):
        equal = frame.assign(value=constant)
        assert statistics.mean_test(equal, "value", ["patient", "run"], both) == expected


def test_runs_and_patients_add_up_with_the_freedom_of_satterthwaite():
    table = crossed(3, 30, 2)["value"].to_numpy().reshape(3, 30)
    variances = [stats.sem(table.mean(1)) ** 2, stats.sem(table.mean(0)) ** 2]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 29)
    assert 2 < freedom < 31
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    found = statistics.mean_interval(crossed(3, 30, 2), "value", ["patient", "run"])
    assert found == pytest.approx((table.mean(), table.mean() - half, table.mean() + half))


def test_runs_of_one_unit_are_left_out_together():
    """Two runs that are equal but for their name tell no more than one."""
    frame = pd.DataFrame({"fold": [0, 1, 2], "run": [0, 2, 4], "value": [0.3, 0.5, 0.1]})
    twice = pd.concat([frame, frame.assign(run=frame["run"] + 1)])
    found = statistics.mean_interval(twice, "value", ["run"], {"run": "fold"})
    assert found == pytest.approx(statistics.mean_interval(frame, "value", ["run"]))


def test_many_units_are_left_out_in_blocks(monkeypatch):
    frame = crossed(1, 3000, 3)
    whole = statistics.mean_interval(frame, "value", ["patient"])
    assert whole[2] - whole[1] == pytest.approx(2 * 1.96 * frame["value"].sem(), rel=0.1)
    monkeypatch.setattr(statistics, "BLOCKS", 3000)
    each = statistics.mean_interval(frame, "value", ["patient"])
    assert each[2] - each[1] == pytest.approx(2 * 1.961 * frame["value"].sem(), rel=1e-3)


def test_a_single_unit_of_each_kind_has_no_interval():
    value, low, high = statistics.mean_interval(crossed(1, 1, 0), "value", ["patient", "run"])
    assert math.isfinite(value)
    assert math.isnan(low)
    assert math.isnan(high)


def test_intervals_repeat_and_follow_the_sign():
    frame = crossed(3, 7, 5)
    one = statistics.mean_interval(frame, "value", ["patient", "run"])
    assert one == statistics.mean_interval(frame, "value", ["patient", "run"])
    mirrored = frame.assign(value=-frame["value"])
    value, low, high = statistics.mean_interval(mirrored, "value", ["patient", "run"])
    assert (-value, -high, -low) == pytest.approx(one, abs=1e-12)


def test_a_unit_that_alone_defines_a_value_stays_in():
    def of_first_unit(weights):
        with np.errstate(invalid="ignore"):
            return weights[:, 0] / weights[:, 0]  # NaN where the first unit is left out

    assert np.isnan(statistics.interval(of_first_unit, [np.arange(5)])).all()  # a single one

    def of_class(weights):  # the mean of a common and of a rare class
        with np.errstate(invalid="ignore"):
            rare = weights[:, 0] / weights[:, 0]
        return (rare + weights @ np.arange(5) / weights.sum(1)) / 2

    values = (1 + (10 - np.arange(1, 5)) / 4) / 2  # without each of the others
    half = stats.t.ppf(0.975, 3) * math.sqrt(3 * values.var())
    found = statistics.interval(of_class, [np.arange(5)])
    assert found == pytest.approx((1.5 - half, 1.5 + half))


def test_units_without_a_value_are_none():
    """A class that two of ten patients have: Student's of two, whatever the others are."""
    frame = pd.DataFrame({"run": 0, "patient": range(10), "value": [0.6, 0.7] + [math.nan] * 8})
    found = statistics.interval(
        lambda weights: means.weighted("n,bn->b", frame["value"].to_numpy(), weights),
        [np.arange(10)],
    )
    expected = stats.t.interval(0.95, 1, 0.65, stats.sem([0.6, 0.7]))
    assert found == pytest.approx(expected)


def test_a_unit_where_the_mean_is_counts():
    frame = pd.DataFrame({"run": range(3), "value": [0.8, 0.9, 1.0]})
    expected = stats.t.interval(0.95, 2, 0.9, stats.sem(frame["value"]))
    assert statistics.mean_interval(frame, "value", ["run"])[1:] == pytest.approx(expected)
    equal = statistics.mean_interval(frame.assign(value=0.5), "value", ["run"])
    assert equal == pytest.approx((0.5, 0.5, 0.5))


def test_a_value_that_is_not_finite_has_no_interval():
    frame = pd.DataFrame({"run": range(4), "value": [1.0, 2.0, 3.0, math.inf]})
    value, low, high = statistics.mean_interval(frame, "value", ["run"])
    assert value == math.inf
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_paired_test_enumerates_every_flip():
    differences = np.array([0.3, 0.1, 0.4, -0.05, 0.2, 0.25])
    flips = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    means = (flips.T * differences).mean(1)
    expected = (np.abs(means) >= abs(differences.mean()) - 1e-12).mean()
    assert statistics.paired_test(differences) == pytest.approx(expected, abs=1e-12)
    assert statistics.paired_test(-differences) == pytest.approx(expected, abs=1e-12)
    assert statistics.paired_test(np.abs(differences)) == pytest.approx(2 / 2**6, abs=1e-12)


def test_the_paired_test_of_many_units():
    rng = np.random.default_rng(3)
    differences = rng.normal(0.02, 0.1, 200)
    p = statistics.paired_test(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert p == statistics.paired_test(differences)
    assert statistics.paired_test(np.zeros(9)) == statistics.paired_test(np.zeros(90)) == 1
    assert math.isnan(statistics.paired_test([0.5]))


@pytest.mark.parametrize(("units", "negative"), [(10, 2), (16, 4), (40, 12)])
def test_sums_that_differ_by_rounding_are_equal(units, negative):
    """Of differences 0.1 and -0.1 the sums are few: their number is binomial."""
    differences = np.full(units, 0.1)
    differences[:negative] = -0.1
    expected = 2 * stats.binom.cdf(negative, units, 0.5)
    assert statistics.paired_test(differences) == pytest.approx(expected, abs=2e-3)


def test_the_smallest_p_is_that_of_units_that_agree():
    for units in (2, 6, 16, 17, 60):
        least = statistics.paired_test(np.linspace(1, 2, units))
        assert least == pytest.approx(statistics.smallest(units), abs=5e-5)
    assert statistics.paired_test(np.linspace(1, 2, 60)) == 1e-5  # 250 comparisons are no bar
    assert statistics.smallest(16) == 2**-15


def test_holm_against_a_worked_example():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, then no less than the one before
    found = statistics.holm([0.01, 0.04, math.nan, 0.03, 0.005])
    assert found[[0, 1, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-12)
    assert math.isnan(found[2])
    assert np.isnan(statistics.holm([math.nan])).all()


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_slopes_equal_those_of_a_formula(confidence):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": np.tile([0.3, 0.5, 0.7, 1.0], 6), "group": np.repeat(range(6), 4)})
    frame["value"] = 0.4 * frame["x"] + frame["group"] + rng.normal(0, 0.1, len(frame))
    fit = smf.ols("value ~ x + C(group)", frame).fit()
    expected = (fit.params["x"], *fit.conf_int(1 - confidence).loc["x"])
    found = statistics.slope(frame, "value", "x", ["group"], confidence=confidence)
    assert found == pytest.approx(expected, rel=1e-9)
    single = frame["group"] * 0
    assert statistics.slope(frame, "value", "x", ["group"], single, confidence) == found


def test_slopes_of_folds_that_differ_are_no_more_for_having_more_seeds():
    """Each fold has a slope of its own; the mean of other folds is 0."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        frame = pd.DataFrame(
            {"x": np.tile([0.3, 0.5, 0.7, 1.0], 15), "run": np.repeat(range(15), 4)}
        )
        fold = frame["run"] // 3
        slopes = rng.normal(0, 0.1, 5)[fold]
        frame["value"] = slopes * frame["x"] + frame["run"] + rng.normal(0, 0.03, 60)
        found = statistics.slope(frame, "value", "x", ["run"], fold)
        plain = statistics.slope(frame, "value", "x", ["run"])
        assert found[0] == pytest.approx(plain[0])
        covered += found[1] <= 0 <= found[2]
    assert covered / 200 >= 0.9  # that of the regression: 0.6
    of_fold = [statistics.slope(part, "value", "x", ["run"])[0] for _, part in frame.groupby(fold)]
    expected = stats.t.interval(0.95, 4, np.mean(of_fold), stats.sem(of_fold))
    assert found[1:] == pytest.approx(expected)


def test_slopes_without_variation_or_freedom():
    frame = pd.DataFrame({"x": [0.3, 1.0], "value": [1.0, 2.4], "group": [0, 0]})
    value, low, high = statistics.slope(frame, "value", "x", ["group"])
    assert value == pytest.approx(2.0)
    assert math.isnan(low)
    assert math.isnan(high)
    flat = frame.assign(group=[0, 1])
    assert all(math.isnan(number) for number in statistics.slope(flat, "value", "x", ["group"]))
