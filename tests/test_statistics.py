"""Intervals, paired tests and slopes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from dpmedbench import statistics


def crossed(runs, patients, seed, run_sd=0.02, patient_sd=0.05, noise_sd=0.02):
    """A row a run and patient, with an effect of each; the true mean is 0."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, run_sd, (runs, 1)) + rng.normal(0, patient_sd, patients)
    run, patient = np.divmod(np.arange(runs * patients), patients)
    values = (effects + rng.normal(0, noise_sd, effects.shape)).ravel()
    return pd.DataFrame({"run": run, "patient": patient, "value": values})


@pytest.mark.parametrize(
    ("runs", "patients", "run_sd", "patient_sd"),
    [(3, 12, 0.02, 0.05), (5, 30, 0.02, 0.05), (8, 60, 0.03, 0.03)],
)
def test_intervals_cover_the_mean_of_other_patients_and_runs(runs, patients, run_sd, patient_sd):
    covered, width = 0, 0.0
    for seed in range(200):
        frame = crossed(runs, patients, seed, run_sd, patient_sd)
        value, low, high = statistics.mean_interval(frame, "value", ["run", "patient"])
        assert low <= value <= high
        covered += low <= 0 <= high
        width += (high - low) / 200
    # of 200 draws of probability 0.95 fewer than 0.9 succeed once in 500 times
    assert covered / 200 >= 0.9
    ideal = 2 * 1.96 * math.sqrt(run_sd**2 / runs + patient_sd**2 / patients)
    assert width < 2.2 * ideal


def test_patients_alone_would_not_cover():
    frames = [crossed(3, 30, seed, run_sd=0.05, patient_sd=0.02) for seed in range(100)]
    ends = [statistics.mean_interval(frame, "value", ["patient"])[1:] for frame in frames]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.6


def test_rows_of_a_patient_are_no_further_patients():
    frame = crossed(3, 8, 1)
    twice = pd.concat([frame, frame])
    once, again = (statistics.mean_interval(f, "value", ["run", "patient"]) for f in (frame, twice))
    assert again == pytest.approx(once, rel=1e-12)


def test_few_units_widen_as_in_the_literature():
    # Hesterberg 2015: alpha/2 = Phi(-sqrt(n / (n - 1)) t)
    t = stats.t.ppf(0.975, 9)
    assert statistics.expanded(10) == pytest.approx(
        1 - 2 * stats.norm.cdf(-math.sqrt(10 / 9) * t), rel=1e-12
    )
    assert statistics.expanded(1000) == pytest.approx(0.95, abs=5e-4)
    assert statistics.expanded(2) == statistics.WIDEST


def test_a_single_unit_of_each_kind_has_no_interval():
    value, low, high = statistics.mean_interval(crossed(1, 1, 0), "value", ["run", "patient"])
    assert math.isfinite(value)
    assert math.isnan(low)
    assert math.isnan(high)


def test_intervals_repeat_and_follow_the_sign():
    frame = crossed(3, 7, 5)
    one = statistics.mean_interval(frame, "value", ["run", "patient"])
    assert one == statistics.mean_interval(frame, "value", ["run", "patient"])
    mirrored = frame.assign(value=-frame["value"])
    value, low, high = statistics.mean_interval(mirrored, "value", ["run", "patient"])
    assert (-value, -high, -low) == pytest.approx(one, abs=1e-12)


def test_resamples_without_a_value_are_left_out():
    def of_first_unit(weights):
        with np.errstate(invalid="ignore"):
            return weights[:, 0] / weights[:, 0]  # NaN where the first unit was not drawn

    assert statistics.interval(of_first_unit, [5]) == (1.0, 1.0)


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
    assert statistics.paired_test(np.zeros(9)) == 1
    assert math.isnan(statistics.paired_test([0.5]))


def test_holm_against_a_worked_example():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, then no less than the one before
    found = statistics.holm([0.01, 0.04, math.nan, 0.03, 0.005])
    assert found[[0, 1, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-12)
    assert math.isnan(found[2])
    assert np.isnan(statistics.holm([math.nan])).all()


def test_slopes_equal_those_of_a_formula():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": np.tile([0.3, 0.5, 0.7, 1.0], 6), "group": np.repeat(range(6), 4)})
    frame["value"] = 0.4 * frame["x"] + frame["group"] + rng.normal(0, 0.1, len(frame))
    fit = smf.ols("value ~ x + C(group)", frame).fit()
    expected = (fit.params["x"], *fit.conf_int().loc["x"])
    found = statistics.slope(frame, "value", "x", ["group"])
    assert found == pytest.approx(expected, rel=1e-9)


def test_slopes_without_variation_or_freedom():
    frame = pd.DataFrame({"x": [0.3, 1.0], "value": [1.0, 2.4], "group": [0, 0]})
    value, low, high = statistics.slope(frame, "value", "x", ["group"])
    assert value == pytest.approx(2.0)
    assert math.isnan(low)
    assert math.isnan(high)
    flat = frame.assign(group=[0, 1])
    assert all(math.isnan(number) for number in statistics.slope(flat, "value", "x", ["group"]))
