"""The contract watches a run: an honest one passes, each classic mistake is refused."""

import math
from dataclasses import replace

import pytest
import torch
from plans import PLAN

from dpmedbench.privacy.contract import ContractBroken, ContractMonitor
from dpmedbench.privacy.randomness import Secure, Seeded
from dpmedbench.privacy.sampling import FixedSizeSampler, PoissonSampler, ShuffledSampler

FIXED = replace(PLAN, sampling="fixed_size", neighbouring="replace_one")
SHUFFLED = replace(PLAN, sampling="shuffled", neighbouring="zero_out")
SCHEDULED = replace(PLAN, noise_factors=tuple(1.2**-epoch for epoch in range(10)))
COUNTED = replace(PLAN, count_noise=1.1)
WEIGHTS = 40 * 30 + 30


def run(
    plan=PLAN,
    *,
    sampler=None,
    num_records=None,
    extra_steps=0,
    noise=1.0,
    skip=None,
    scale=1,
    norms=None,
    rate=None,
    leak=None,
    randomness=None,
):
    """A run with one linear layer whose clipped sums are given.

    `noise`, `scale`: times what the plan says; `norms`: clipping norm of a step; `rate`: share of
    the coordinates that is masked; `leak`: what is released outside of the mask; the others are
    mistakes by their name.
    """
    layer = torch.nn.Linear(40, 30)
    monitor = ContractMonitor(plan, layer, num_records or plan.num_records)
    randomness = randomness or Seeded(3)
    sampler = sampler or plan.sampler(randomness)
    parameters = [p for name, p in layer.named_parameters() if name != skip]
    for epoch in range(plan.epochs):
        steps = plan.steps_per_epoch + (extra_steps if epoch == plan.epochs - 1 else 0)
        for indices in sampler.epoch(plan.steps_per_epoch):
            monitor.drew(sampler, indices)
            step = monitor.observed.steps + 1
            if step > epoch * plan.steps_per_epoch + steps:
                break
            norm = plan.clipping_norm if norms is None else norms(step)
            kept = None
            if rate is not None:
                kept = [randomness.uniform(p.numel()).view_as(p) >= rate for p in parameters]
            sums, released = [], []
            for number, parameter in enumerate(parameters):
                total = torch.full(parameter.shape, len(indices) * scale * norm / WEIGHTS**0.5)
                drawn = randomness.normal(parameter.shape, torch.float32, "cpu")
                drawn *= plan.noise_std(step, norm) * noise
                if kept:
                    total, drawn = total * kept[number], drawn * kept[number]
                    if leak == "noise":
                        drawn[~kept[number]] = 1e-6
                    if leak == "sum":
                        total[~kept[number]] = 1e-6
                sums.append(total)
                released.append(total + drawn)
            monitor.noised(parameters, sums, released, norm, kept)
            if step == plan.steps and extra_steps > 0:
                monitor.noised(parameters, sums, released, norm)
    return monitor.finish()


@pytest.mark.parametrize("plan", [PLAN, FIXED, SHUFFLED, SCHEDULED, COUNTED])
@pytest.mark.parametrize("rate", [None, 0.9])
@pytest.mark.parametrize("norms", [None, lambda step: 1 / step])
def test_an_honest_run_keeps_the_contract(plan, rate, norms):
    observed = run(plan, rate=rate, norms=norms)
    assert observed["steps"] == 60
    assert observed["noise_additions"] == 120
    assert observed["noise_ratio"] == pytest.approx(1.0, abs=0.02 if rate is None else 0.06)


def test_an_honest_secure_run_keeps_the_contract():
    assert run(randomness=Secure())["noise_ratio"] == pytest.approx(1.0, abs=0.03)


class Partition(PoissonSampler):
    """A shuffled partition that passes for another sampler by its attributes."""

    def epoch(self, steps):
        return iter(self.randomness.permutation(self.num_records).split(10))


class Fixed(PoissonSampler):
    """Batches of a fixed size, drawn without replacement each time."""

    def epoch(self, steps):
        for _ in range(steps):
            yield self.randomness.choice(self.num_records, 10)


class Eager(PoissonSampler):
    """Draws twice as many records as it says."""

    def epoch(self, steps):
        for _ in range(steps):
            yield (self.randomness.uniform(self.num_records) < 1 / 3).nonzero()[:, 0]


class WithReplacement(PoissonSampler):
    """Batches of the right size with records in them twice."""

    def epoch(self, steps):
        for _ in range(steps):
            yield (self.randomness.uniform(10) * self.num_records).long()


class OneMore(PoissonSampler):
    """Distinct records, one too many."""

    def epoch(self, steps):
        for _ in range(steps):
            yield self.randomness.choice(self.num_records, 11)


def disguised(kind, plan=PLAN):
    """A sampler of another kind under the type of the honest one."""
    sampler = plan.sampler(Seeded(3))
    sampler.epoch = kind(60, plan.sample_rate, Seeded(3)).epoch
    return sampler


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        ({"sampler": ShuffledSampler(60, 10, Seeded(0))}, "come from ShuffledSampler"),
        ({"sampler": PoissonSampler(60, 0.1, Seeded(0))}, "at rate 0.1, .* 60 at rate 0.166667"),
        ({"sampler": PoissonSampler(61, 1 / 6, Seeded(0))}, "draws from 61 records"),
        ({"sampler": disguised(Partition)}, "drawn exactly once in an epoch"),
        ({"sampler": disguised(Fixed)}, "hardly vary"),
        ({"sampler": disguised(Eager)}, "the sample rate is not the plan's"),
        ({"sampler": disguised(WithReplacement)}, "times in one batch"),
        ({"num_records": 61}, "plan is for 60 training records, found 61"),
        ({"extra_steps": 1}, "step 61 of 60 planned"),
        ({"extra_steps": -1}, "59 steps were noised, 60 planned"),
        ({"noise": 0.0}, "the noise on weight has 0 times the planned"),
        ({"noise": 0.9}, "times the planned standard deviation"),
        ({"skip": "bias"}, "1 trainable tensors got no noise, the first is bias"),
        ({"scale": 1.01}, "gradients are not clipped"),
        ({"rate": 0.5, "leak": "noise"}, "coordinates of weight outside of the sparse mask"),
        ({"rate": 0.5, "leak": "sum"}, "coordinates of weight outside of the sparse mask"),
        ({"rate": 0.5, "noise": 0.9}, "times the planned standard deviation"),
        ({"norms": lambda step: 1.0, "scale": 1.1}, "gradients are not clipped"),
    ],
)
def test_each_classic_mistake_is_refused(mistake, promise):
    with pytest.raises(ContractBroken, match=promise):
        run(**mistake)


@pytest.mark.parametrize(
    ("plan", "sampler", "promise"),
    [
        (FIXED, PoissonSampler(60, 1 / 6, Seeded(0)), "come from PoissonSampler.*FixedSizeSampler"),
        (FIXED, FixedSizeSampler(60, 9, Seeded(0)), "in batches of 9, .* in batches of 10"),
        (FIXED, disguised(Partition, FIXED), "a shuffled partition, not fixed_size samples"),
        (FIXED, disguised(WithReplacement, FIXED), "times in one batch"),
        (FIXED, disguised(OneMore, FIXED), "a batch has 11 records, the plan says 10"),
        (SHUFFLED, FixedSizeSampler(60, 10, Seeded(0)), "come from FixedSizeSampler"),
        (SHUFFLED, disguised(Fixed, SHUFFLED), "records were not drawn in an epoch and .* once"),
    ],
)
def test_each_sampling_has_its_own_checks(plan, sampler, promise):
    with pytest.raises(ContractBroken, match=promise):
        run(plan, sampler=sampler)


@pytest.mark.parametrize(
    ("promised", "done"), [(PLAN, SCHEDULED), (SCHEDULED, PLAN), (COUNTED, PLAN)]
)
def test_noise_of_another_plan_is_refused(promised, done):
    """A schedule that was left out, or brought in, or the count's share that was forgotten."""
    layer = torch.nn.Linear(40, 30)
    monitor, randomness = ContractMonitor(promised, layer, 60), Seeded(1)
    sums = [torch.zeros_like(parameter) for parameter in layer.parameters()]

    def train():
        for step in range(1, 61):
            std = done.noise_std(step)
            noise = [std * randomness.normal(total.shape, torch.float32, "cpu") for total in sums]
            monitor.noised([*layer.parameters()], sums, noise, promised.clipping_norm)

    with pytest.raises(ContractBroken, match="times the planned standard deviation"):
        train()


@pytest.mark.parametrize("error", [0.98, 1.02])
def test_two_percent_of_noise_are_missed_on_a_large_tensor(error):
    layer, sums = torch.nn.Linear(1000, 1000, bias=False), [torch.zeros(1000, 1000)]
    monitor = ContractMonitor(PLAN, layer, 60)
    noise = Seeded(1).normal((1000, 1000), torch.float32, "cpu") * PLAN.noise_std(1)
    monitor.noised([layer.weight], sums, [noise], PLAN.clipping_norm)
    with pytest.raises(ContractBroken, match="times the planned standard deviation"):
        monitor.noised([layer.weight], sums, [error * noise], PLAN.clipping_norm)


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


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (torch.nn.BatchNorm2d(3), "is BatchNorm in training mode"),
        (torch.nn.BatchNorm2d(3, track_running_stats=False).eval(), "mixes the batch"),
        (torch.nn.InstanceNorm2d(3, track_running_stats=True), "running statistics"),
    ],
)
def test_a_layer_that_mixes_records_or_keeps_their_statistics_is_refused(layer, why):
    with pytest.raises(ContractBroken, match=rf"layer 0 .*{why}"):
        ContractMonitor(PLAN, torch.nn.Sequential(layer), 60)


def test_a_layer_that_begins_to_mix_records_is_refused_at_the_next_batch():
    """`train()` of the whole model wakes up a frozen BatchNorm."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3).eval())
    monitor = ContractMonitor(PLAN, model, 60)
    sampler = PLAN.sampler(Seeded(0))
    monitor.drew(sampler, torch.arange(2))
    model.train()
    with pytest.raises(ContractBroken, match="layer 1 is BatchNorm in training mode"):
        monitor.drew(sampler, torch.arange(2))


@pytest.mark.parametrize("plan", [PLAN, FIXED, SHUFFLED])
def test_honest_runs_of_every_size_pass(plan):
    """Few or many steps, small or whole-set batches: no false alarm."""
    for seed in range(30):
        records = 4 + 7 * seed
        changed = replace(
            plan,
            num_records=records,
            batch_size=records if seed % 7 == 0 else min(records, 1 + seed % 13),
            epochs=1 + seed % 3,
            delta=1e-4,
        )
        run(changed, randomness=Seeded(seed))


def test_only_one_step_in_every_is_measured():
    layer = torch.nn.Linear(2, 2)
    monitor = ContractMonitor(PLAN, layer, 60, every=6)
    parameters = [*layer.parameters()]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    noise = [total + 3 * torch.tensor([1.0, -1.0]) for total in sums]
    measured = []
    for step in range(1, 61):
        before = monitor.observed.noise_coordinates
        monitor.noised(parameters, sums, noise, PLAN.clipping_norm)
        if monitor.observed.noise_coordinates > before:
            measured.append(step)
    assert measured == list(range(1, 61, 6))
    ratio = monitor.observed.noise_squared / monitor.observed.noise_coordinates
    assert math.sqrt(ratio) == pytest.approx(1.0)


def test_the_monitor_goes_on_from_a_checkpoint():
    layer = torch.nn.Linear(2, 2)
    monitor = ContractMonitor(PLAN, layer, 60)
    sampler = PLAN.sampler(Seeded(0))
    for indices in sampler.epoch(6):
        monitor.drew(sampler, indices)
    again = ContractMonitor(PLAN, layer, 60)
    again.restore(monitor.state())
    assert again.observed == monitor.observed
    assert again.observed.draws > 0
