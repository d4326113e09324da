"""The plan, its sampler, and the contract that watches a run."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpmedbench.errors import UserError
from dpmedbench.privacy.contract import ContractBroken, ContractMonitor
from dpmedbench.privacy.plan import PrivacyPlan, thresholds
from dpmedbench.privacy.sampling import PoissonSampler, ShuffledSampler

PLAN = PrivacyPlan(
    unit="image",
    neighbouring="add_remove",
    num_records=60,
    batch_size=10,
    epochs=10,
    noise_multiplier=2.0,
    thresholds=(1.5,),
    delta=1e-3,
    accountant="rdp",
)


def test_the_plan_alone_gives_rate_steps_noise_and_epsilon():
    assert PLAN.sample_rate == pytest.approx(1 / 6)
    assert PLAN.steps == 60
    assert PLAN.noise_std == pytest.approx(3.0)
    assert PLAN.epsilon(0) == 0
    assert PLAN.epsilon(60) == pytest.approx(PLAN.epsilons(60)["rdp"])
    assert PLAN.calibrated(4.0).epsilon(60) <= 4.0


@given(r=st.floats(0.01, 10), tensors=st.integers(1, 200))
def test_per_layer_sensitivity(r, tensors):
    """Scaled thresholds keep the sensitivity R; the same R for each multiplies it by sqrt(L)."""
    scaled = replace(PLAN, thresholds=thresholds(r, "per_layer", "scaled", tensors))
    same = replace(PLAN, thresholds=thresholds(r, "per_layer", "same", tensors))
    assert scaled.sensitivity == pytest.approx(r)
    assert same.sensitivity == pytest.approx(r * math.sqrt(tensors))
    assert same.noise_std == pytest.approx(PLAN.noise_multiplier * same.sensitivity)


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
    ],
)
def test_impossible_promises_are_refused(change, named):
    with pytest.raises(UserError, match=named):
        replace(PLAN, **change)


def test_poisson_batches_are_binomial_and_independent():
    sampler = PoissonSampler(200, 0.1, seed=1)
    drawn = torch.zeros(2000, 200)
    for row, indices in zip(drawn, sampler.epoch(2000), strict=True):
        row[indices] = 1
    sizes = drawn.sum(1).numpy()
    assert abs(sizes.mean() - 20) < 5 * math.sqrt(18 / 2000)
    expected = stats.binom.pmf(np.arange(201), 200, 0.1) * 2000
    bins = [slice(0, 14), *(slice(k, k + 2) for k in range(14, 26, 2)), slice(26, 201)]
    counts = np.bincount(sizes.astype(int), minlength=201)
    test = stats.chisquare([counts[b].sum() for b in bins], [expected[b].sum() for b in bins])
    assert test.pvalue > 1e-4
    # any two records: together as often as chance has it
    together = (drawn.T @ drawn).fill_diagonal_(0) / 2000
    assert together.sum() / (200 * 199) == pytest.approx(0.01, rel=0.03)


def test_samplers_go_on_from_their_state():
    for sampler in (PoissonSampler(30, 0.3, seed=2), ShuffledSampler(30, 10, seed=2)):
        list(sampler.epoch(3))
        state = sampler.state()
        first = [batch.tolist() for batch in sampler.epoch(3)]
        sampler.restore(state)
        assert [batch.tolist() for batch in sampler.epoch(3)] == first


def test_a_shuffled_epoch_has_every_record_once():
    batches = list(ShuffledSampler(25, 10, seed=0).epoch(3))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert sorted(torch.cat(batches).tolist()) == list(range(25))


# --- the contract: an honest run passes, each classic mistake is refused ---


def run(plan=PLAN, *, sampler=None, num_records=None, extra_steps=0, std=None, skip=None, scale=1):
    """A run with one linear layer whose gradients are given; keywords are the mistakes."""
    layer = torch.nn.Linear(40, 30)
    monitor = ContractMonitor(plan, layer, num_records or plan.num_records)
    sampler = sampler or plan.sampler(seed=3)
    generator = torch.Generator().manual_seed(4)
    for epoch in range(plan.epochs):
        steps = plan.steps_per_epoch + (extra_steps if epoch == plan.epochs - 1 else 0)
        for indices in sampler.epoch(steps):
            monitor.drew(sampler, indices)
            count = len(indices) * scale

            def sums(parameter, count=count):
                share = parameter.numel() / (40 * 30 + 30)
                total = torch.full_like(parameter, math.sqrt(share / parameter.numel()))
                total = total.detach() * count * plan.sensitivity
                noise = torch.randn(parameter.shape, generator=generator)
                return total, total + (plan.noise_std if std is None else std) * noise

            monitor.noised([p for n, p in layer.named_parameters() if n != skip], sums)
        monitor.end_epoch()
    return monitor.finish()


def test_an_honest_run_keeps_the_contract():
    observed = run()
    assert observed["steps"] == 60
    assert observed["noise_additions"] == 120
    assert observed["noise_std"] == pytest.approx(3.0, rel=0.02)


class Partition(PoissonSampler):
    """A shuffled partition that passes for a Poisson sampler by its attributes."""

    def epoch(self, steps):
        return iter(torch.randperm(self.num_records, generator=self.generator).split(10))


class Fixed(PoissonSampler):
    """Batches of a fixed size, drawn without replacement each time."""

    def epoch(self, steps):
        for _ in range(steps):
            yield torch.randperm(self.num_records, generator=self.generator)[:10]


class Eager(PoissonSampler):
    """Draws twice as many records as it says."""

    def epoch(self, steps):
        for _ in range(steps):
            yield (torch.rand(self.num_records, generator=self.generator) < 1 / 3).nonzero()[:, 0]


def disguised(kind):
    """A sampler of another kind under the type of the honest one."""
    sampler = PoissonSampler(60, PLAN.sample_rate, seed=3)
    sampler.epoch = kind(60, PLAN.sample_rate, seed=3).epoch
    return sampler


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        ({"sampler": ShuffledSampler(60, 10, 0)}, "come from ShuffledSampler"),
        ({"sampler": PoissonSampler(60, 0.1, 0)}, "at rate 0.1, the plan says 60 at 0.166667"),
        ({"sampler": PoissonSampler(61, 1 / 6, 0)}, "draws from 61 records"),
        ({"sampler": disguised(Partition)}, "drawn exactly once in an epoch"),
        ({"sampler": disguised(Fixed)}, "hardly vary"),
        ({"sampler": disguised(Eager)}, "the sample rate is not the plan's"),
        ({"num_records": 61}, "plan is for 60 training records, found 61"),
        ({"extra_steps": 1}, "step 61 of 60 planned"),
        ({"extra_steps": -1}, "59 steps were noised, 60 planned"),
        ({"std": 0.0}, "has standard deviation 0"),
        ({"std": 2.7}, "the plan says 3"),
        ({"skip": "bias"}, "1 trainable tensors got no noise, the first is bias"),
        ({"scale": 1.1}, "gradients are not clipped"),
    ],
)
def test_each_classic_mistake_is_refused(mistake, promise):
    with pytest.raises(ContractBroken, match=promise):
        run(**mistake)


def test_a_batch_that_got_no_noise_is_refused():
    """The plan's steps are all noised, but one more batch was drawn, and may have been used."""
    honest_drew = ContractMonitor.drew

    def drew(self, sampler, indices):
        honest_drew(self, sampler, indices)
        if self.observed.batches == 1:
            honest_drew(self, sampler, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContractMonitor, "drew", drew)
        with pytest.raises(ContractBroken, match="61 batches were drawn, 60 steps were noised"):
            run()


def test_batch_normalisation_in_training_is_refused():
    with pytest.raises(ContractBroken, match="0 is BatchNorm"):
        ContractMonitor(PLAN, torch.nn.Sequential(torch.nn.BatchNorm2d(3)), 60)


def test_honest_runs_of_every_size_pass():
    """Few or many steps, small or whole-set batches: no false alarm."""
    for seed in range(40):
        records = 4 + 7 * seed
        plan = replace(
            PLAN,
            num_records=records,
            batch_size=min(records, 1 + seed % 13),
            epochs=1 + seed % 3,
            delta=1e-4,
        )
        run(plan, sampler=plan.sampler(seed))


def test_the_monitor_goes_on_from_a_checkpoint():
    layer = torch.nn.Linear(2, 2)
    monitor = ContractMonitor(PLAN, layer, 60)
    sampler = PLAN.sampler(0)
    monitor.drew(sampler, next(sampler.epoch(1)))
    again = ContractMonitor(PLAN, layer, 60)
    again.restore(monitor.state())
    assert again.observed == monitor.observed
    assert again.observed.draws > 0
