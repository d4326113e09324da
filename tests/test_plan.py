"""The plan: what its numbers are, how they relate, and which promises it refuses."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import PLAN

from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting
from dpmedbench.privacy.plan import thresholds, validity
from dpmedbench.privacy.randomness import Seeded
from dpmedbench.privacy.sampling import SAMPLERS

DUKE = replace(PLAN, num_records=88, epochs=100, thresholds=(1.0,), delta=1e-5)


def test_the_plan_alone_gives_rate_steps_noise_and_epsilon():
    assert PLAN.sample_rate == pytest.approx(1 / 6)
    assert PLAN.steps == 60
    assert PLAN.noise_std(1) == pytest.approx(3.0)
    assert PLAN.epsilon(0) == 0
    assert PLAN.epsilon(60) == pytest.approx(PLAN.epsilons(60)["rdp"])
    assert PLAN.calibrated(4.0).epsilon(60) <= 4.0


def test_size_and_steps_are_public_numbers_and_not_rounded_products():
    """88 records in batches of 10: the divisor is 10 (int(N q) with q = 1/9 is 9), 9 steps."""
    assert DUKE.batch_size == 10
    assert DUKE.steps_per_epoch == 9
    assert DUKE.steps == 900
    assert DUKE.sample_rate == 10 / 88
    for records in range(1, 400):
        plan = replace(DUKE, num_records=records, batch_size=min(7, records), delta=1e-5)
        assert (plan.steps_per_epoch - 1) * plan.batch_size < records
        assert plan.steps_per_epoch * plan.batch_size >= records


def test_epsilon_knows_nothing_of_clipping():
    """Thresholds, and so mechanisms and models, change the noise and leave epsilon alone."""
    other = replace(PLAN, thresholds=(0.1,) * 82)
    assert other.noise_std(1) != PLAN.noise_std(1)
    assert other.epsilons(60) == PLAN.epsilons(60)


@given(r=st.floats(0.01, 10), tensors=st.integers(1, 200))
def test_per_layer_clipping_norm(r, tensors):
    """Scaled thresholds keep the norm R; the same R for each multiplies it by sqrt(L)."""
    scaled = replace(PLAN, thresholds=thresholds(r, "per_layer", "scaled", tensors))
    same = replace(PLAN, thresholds=thresholds(r, "per_layer", "same", tensors))
    assert scaled.clipping_norm == pytest.approx(r)
    assert same.clipping_norm == pytest.approx(r * math.sqrt(tensors))
    assert same.noise_std(1) == pytest.approx(PLAN.noise_multiplier * same.clipping_norm)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"delta": 1 / 60},
            r"privacy.delta: found 0.0166667, but .* 60 .*allowed is less than 1/60",
        ),
        ({"batch_size": 61}, "training.batch_size: found 61"),
        ({"batch_size": 0}, "training.batch_size: found 0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier: found 0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier: found nan"),
        ({"thresholds": ()}, "max_grad_norm"),
        ({"noise_factors": (1.0,) * 9}, "noise_schedule: found 9 factors .* each of 10 epochs"),
        ({"noise_factors": (1.0,) * 9 + (0.0,)}, "noise_schedule: .* from 0 to 1"),
        ({"noise_factors": (1.0,) * 9 + (math.inf,)}, "noise_schedule: .* to inf"),
        ({"count_noise": 1.0}, "count_noise: found 1, .*half the largest .*\\(2\\)"),
        ({"count_noise": 1.4, "noise_factors": (1.5,) * 10}, "count_noise: found 1.4"),
        ({"sampling": "shuffled"}, "privacy: sampling shuffled with .* add_remove .*zero_out"),
        (
            {"sampling": "fixed_size", "neighbouring": "replace_one", "accountant": "prv"},
            "privacy: accountant prv has no bound for sampling fixed_size; use rdp",
        ),
    ],
)
def test_impossible_promises_are_refused(change, named):
    with pytest.raises(UserError, match=named):
        replace(PLAN, **change)


# --- which accounting holds for which sampling ---

ALLOWED = {
    ("poisson", "add_remove"): {"rdp", "prv", "gdp", "pld"},
    ("poisson", "zero_out"): {"rdp", "prv", "gdp", "pld"},
    ("fixed_size", "replace_one"): {"rdp"},
    ("shuffled", "zero_out"): {"rdp", "prv", "gdp", "pld"},
    ("shuffled", "replace_one"): {"rdp", "prv", "gdp", "pld"},
}


@pytest.mark.parametrize("sampling", SAMPLERS)
@pytest.mark.parametrize("neighbouring", ["add_remove", "replace_one", "zero_out"])
def test_every_combination_has_epsilons_or_a_reason(sampling, neighbouring):
    allowed = ALLOWED.get((sampling, neighbouring), set())
    for accountant in accounting.ACCOUNTANTS:
        reason = validity(sampling, neighbouring, accountant)
        assert (reason is None) == (accountant in allowed)
        assert reason is None or "use " in reason
    if allowed:
        plan = replace(PLAN, sampling=sampling, neighbouring=neighbouring)
        found = plan.epsilons(plan.steps)
        assert {name for name, value in found.items() if value != math.inf} == allowed
        for accountant in set(accounting.ACCOUNTANTS) - allowed:
            with pytest.raises(ValueError, match="no bound"):
                plan.epsilon(1, accountant)


def test_a_record_zeroed_out_of_poisson_batches_costs_what_its_removal_costs():
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    zeroed = replace(PLAN, neighbouring="zero_out")
    assert zeroed.sensitivity == PLAN.sensitivity == PLAN.clipping_norm
    assert zeroed.epsilons(60) == PLAN.epsilons(60)
    one = privacy_loss_distribution.from_gaussian_mechanism(
        2.0, sampling_prob=1 / 6, neighboring_relation=NeighboringRelation.REPLACE_SPECIAL
    )
    reference = one.self_compose(60).get_epsilon_for_delta(1e-3)
    assert zeroed.epsilon(60, "pld") == pytest.approx(reference, rel=2e-3)


@pytest.mark.parametrize(
    ("sigma", "zero_out", "replace_one"),
    [(0.3, 696.8, 2506), (0.5, 284.4, 970), (0.7, 162.1, 529), (1.0, 91.8, 284)],
)
def test_shuffled_epochs_are_whole_gaussians(sigma, zero_out, replace_one):
    """One Gaussian an epoch; a replaced record has twice the sensitivity at the same noise."""
    plan = replace(DUKE, sampling="shuffled", neighbouring="zero_out", noise_multiplier=sigma)
    for neighbouring, known in (("zero_out", zero_out), ("replace_one", replace_one)):
        other = replace(plan, neighbouring=neighbouring)
        assert other.noise_std(1) == sigma
        found = other.epsilons(other.steps)
        assert found["prv"] == found["gdp"] == found["pld"] == pytest.approx(known, rel=2e-3)
        assert found["rdp"] >= known * 0.999


def test_a_shuffled_epoch_is_paid_for_at_its_first_step():
    plan = replace(DUKE, sampling="shuffled", neighbouring="zero_out")
    assert plan.epsilon(1) == plan.epsilon(9) == accounting.epsilon("rdp", ((2.0, 1),), 1.0, 1e-5)
    assert plan.epsilon(10) == plan.epsilon(18) > plan.epsilon(9)


def test_fixed_size_at_full_rate_is_the_whole_gaussian_with_twice_the_norm():
    plan = replace(DUKE, sampling="fixed_size", neighbouring="replace_one", batch_size=88, epochs=5)
    assert plan.sensitivity == 2 * plan.clipping_norm
    gaussian = accounting.epsilon("rdp", ((plan.noise_std(1) / plan.sensitivity, 5),), 1.0, 1e-5)
    assert plan.epsilon(5) == pytest.approx(gaussian, rel=1e-12)


# --- the noise of each step ---


def test_the_noise_of_a_step_is_that_of_its_epoch():
    factors = tuple(1 + epoch / 10 for epoch in range(10))
    plan = replace(PLAN, noise_factors=factors)
    assert plan.noise_multiplier_at(1) == plan.noise_multiplier_at(6) == 2.0
    assert plan.noise_multiplier_at(7) == pytest.approx(2.2)
    assert plan.noise_multiplier_at(60) == pytest.approx(3.8)
    assert plan.noise_std(60) == pytest.approx(3.8 * 1.5)
    assert plan.history(0) == ()
    assert plan.history(8) == ((2.0, 6), (2.2, 2))
    for step in (0, 61):
        with pytest.raises(ValueError, match=f"step {step} is not one of 60"):
            plan.noise_multiplier_at(step)


@given(
    factors=st.lists(st.sampled_from([0.5, 1.0, 1.5]), min_size=10, max_size=10),
    steps=st.integers(0, 60),
)
def test_history_is_the_noise_of_each_step(factors, steps):
    plan = replace(PLAN, noise_factors=tuple(factors))
    unrolled = [sigma for sigma, count in plan.history(steps) for _ in range(count)]
    assert unrolled == [plan.noise_multiplier_at(step) for step in range(1, steps + 1)]
    assert all(
        a != b for (a, _), (b, _) in zip(plan.history(60), plan.history(60)[1:], strict=False)
    )


@given(sigma=st.floats(0.1, 5), share=st.floats(0.51, 50), doubled=st.booleans())
def test_count_and_gradient_together_cost_the_noise_multiplier(sigma, share, doubled):
    """Gradient and count released together are one Gaussian, whose mu^2 are added.

    The centred bit is +-1/2, so it changes by 1/2 with a record, and by 1 with a replaced one.
    """
    neighbouring = "replace_one" if doubled else "zero_out"
    plan = replace(PLAN, sampling="shuffled", neighbouring=neighbouring)
    plan = replace(plan, noise_multiplier=sigma, count_noise=sigma * share)
    assert plan.noise_std(1) > sigma * plan.clipping_norm
    gradient = plan.sensitivity / plan.noise_std(1)
    count = (1.0 if doubled else 0.5) / plan.count_noise
    counted = plan.sensitivity / (plan.noise_multiplier_at(1) * plan.clipping_norm)
    assert math.hypot(gradient, count) == pytest.approx(counted)
    assert plan.epsilon(60) == replace(plan, count_noise=None).epsilon(60)


@pytest.mark.parametrize(
    ("sampling", "neighbouring"), [("poisson", "add_remove"), ("fixed_size", "replace_one")]
)
def test_calibration_keeps_the_factors(sampling, neighbouring):
    factors = (1.0,) * 6 + (0.6,) * 4
    plan = replace(PLAN, sampling=sampling, neighbouring=neighbouring, noise_factors=factors)
    found = plan.calibrated(8.0)
    assert found.noise_factors == factors
    assert found.epsilon(60) <= 8.0
    less = replace(found, noise_multiplier=found.noise_multiplier * 0.99)
    assert less.epsilon(60) > 8.0


def test_calibration_refuses_what_no_noise_between_a_tenth_and_a_thousand_spends():
    with pytest.raises(UserError, match="above 1000; raise the target or lower the epochs"):
        PLAN.calibrated(1e-3)
    with pytest.raises(UserError, match=r"below 0\.1, which spends .*; lower the target$"):
        PLAN.calibrated(1e9)


def test_the_plan_gives_the_sampler_of_its_sampling():
    randomness = Seeded(0)
    assert PLAN.sampler(randomness).sample_rate == PLAN.sample_rate
    for sampling in ("fixed_size", "shuffled"):
        plan = replace(PLAN, sampling=sampling, neighbouring="replace_one")
        sampler = plan.sampler(randomness)
        assert type(sampler) is SAMPLERS[sampling]
        assert (sampler.num_records, sampler.batch_size) == (60, 10)
