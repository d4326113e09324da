"""What every private engine has on top of its sums: noise, masks, thresholds, the step."""

import math
from dataclasses import replace

import pytest
import torch
from opacus.optimizers import AdaClipDPOptimizer
from plans import PLAN
from torch import nn

from dpmedbench.dpsgd.quantile import QuantileThreshold
from dpmedbench.dpsgd.sparsification import Sparsifier, masked_step
from dpmedbench.dpsgd.training import build
from dpmedbench.privacy.contract import ContractMonitor
from dpmedbench.privacy.randomness import Secure, Seeded

MECHANISM = {
    "engine": "bookkeeping",
    "mode": "mix_opt",
    "clipping": "abadi",
    "sparsification": None,
    "adaptive": {"target": 0.5, "learning_rate": 0.2},
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 20)).double()


def training(optimizer=None, mechanism=None, model=None, randomness=None, **plan):
    """Training of a small network, its monitor aware of a batch of any size."""
    model = model or network()
    optimizer = (optimizer or (lambda p: torch.optim.SGD(p, lr=1.0)))(model.parameters())
    usual = {"num_records": 40, "batch_size": 8, "epochs": 4, "thresholds": (0.5,)}
    plan = replace(PLAN, **usual | plan)
    monitor = ContractMonitor(plan, model, plan.num_records)
    masks = torch.Generator().manual_seed(5)
    return build(
        MECHANISM | (mechanism or {}),
        model,
        optimizer,
        plan,
        monitor,
        randomness or Seeded(7),
        masks,
    )


def go(private, batch=8, scale=1.0):
    """One step on random data; what it took from the weights."""
    sampler = private.plan.sampler(Seeded(0))
    private.monitor.drew(sampler, torch.arange(batch))
    before = [p.detach().clone() for p in private.engine.parameters]
    if batch:
        x = torch.randn(batch, 30, dtype=torch.float64)
        private.backward(scale * private.model(x).square().sum(1))
    private.step()
    return [b - p.detach() for b, p in zip(before, private.engine.parameters, strict=True)]


@pytest.mark.parametrize("randomness", [Seeded(7), Secure()])
def test_an_empty_batch_gives_noise_alone_over_the_expected_size(randomness):
    noise = torch.cat([moved.flatten() for moved in go(training(randomness=randomness), batch=0)])
    assert noise.std().item() == pytest.approx(2.0 * 0.5 / 8, rel=0.05)


def test_noise_follows_the_schedule():
    private = training(noise_factors=(1.0, 0.5, 4.0, 1.0))
    sizes = [torch.cat([m.flatten() for m in go(private, batch=0)]).std().item() for _ in range(20)]
    wanted = [2.0 * factor * 0.5 / 8 for factor in (1.0, 0.5, 4.0, 1.0) for _ in range(5)]
    assert sizes == pytest.approx(wanted, rel=0.1)


def test_gradient_norms_are_told_and_forgotten():
    private = training()
    go(private, batch=3)
    norms, clipped = private.gradient_norms()
    assert norms.shape == (3,)
    assert clipped.shape == (3, 1)
    assert clipped.flatten().tolist() == (norms > 0.5).tolist()
    assert private.gradient_norms() is None


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "rmsprop"])
def test_sparsified_coordinates_get_no_noise_and_stay_with_their_state(kind):
    optimizers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
    }
    sparse = {"sparsification": {"final_rate": 0.9, "refresh": 2}}
    private = training(optimizers[kind], sparse)
    for step in range(1, 21):
        before = {
            p: {k: v.clone() for k, v in private.optimizer.state.get(p, {}).items()}
            for p in private.engine.parameters
        }
        moved = go(private)
        masks = private.engine.masks
        if step <= 5:  # the first epoch is not sparsified
            assert masks is None
            assert all((m != 0).all() for m in moved)
            continue
        for p, m, mask in zip(private.engine.parameters, moved, masks, strict=True):
            assert not m[~mask].any()
            assert (m[mask] != 0).all()
            for key, value in private.optimizer.state[p].items():
                if value.shape == p.shape:
                    assert torch.equal(value[~mask], before[p][key][~mask])
                    assert not torch.equal(value[mask], before[p][key][mask])


def test_the_first_masked_step_leaves_no_trace_on_masked_coordinates():
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    optimizer = torch.optim.SGD([p], lr=1.0, momentum=0.9)
    mask = torch.tensor([True, True, False, False])
    masked_step(optimizer, [p], [mask])
    assert p.tolist() == [0, 0, 1, 1]
    assert optimizer.state[p]["momentum_buffer"].tolist() == [1, 1, 0, 0]


def test_sparsification_cools_gradually_and_is_refreshed():
    """Zhu & Blaschko 2021, Alg. 1: rates 0 to final, two masks an epoch, held in between."""
    sparsifier = Sparsifier([(20000,)], 0.9, 2, 4, 5, torch.Generator().manual_seed(0))
    masks = [sparsifier.masks(step) for step in range(1, 21)]
    assert masks[:5] == [None] * 5
    shares = [1 - mask[0].double().mean().item() for mask in masks[5:]]
    wanted = [0.9 * epoch / 3 for epoch in (1, 2, 3) for _ in range(5)]
    assert shares == pytest.approx(wanted, abs=0.02)
    for epoch in range(1, 4):
        five = [mask[0] for mask in masks[5 * epoch : 5 * epoch + 5]]
        assert torch.equal(five[0], five[1])
        assert torch.equal(five[2], five[4])
        assert not torch.equal(five[1], five[2])


def test_more_refreshes_than_steps_draw_at_every_step():
    sparsifier = Sparsifier([(1000,)], 0.9, 10, 2, 3, torch.Generator().manual_seed(0))
    masks = [sparsifier.masks(step) for step in range(1, 7)][3:]
    assert not torch.equal(masks[0][0], masks[1][0])
    assert not torch.equal(masks[1][0], masks[2][0])


def test_sparsification_goes_on_at_an_epoch_as_if_undisturbed():
    sparse = {"sparsification": {"final_rate": 0.9, "refresh": 2}}
    straight, stopped = training(mechanism=sparse), training(mechanism=sparse)
    for _ in range(10):
        go(straight, batch=0), go(stopped, batch=0)
    again = training(mechanism=sparse, model=stopped.model)
    again.monitor.restore(stopped.monitor.state())
    again.restore(stopped.state())
    for _ in range(7):
        for a, b in zip(go(straight, batch=0), go(again, batch=0), strict=True):
            assert torch.equal(a, b)


def test_the_adaptive_threshold_moves_as_that_of_opacus():
    """Without noise, and where the batch has just its expected size, the two are the same."""
    p = nn.Parameter(torch.zeros(3))
    opacus = AdaClipDPOptimizer(
        torch.optim.SGD([p], lr=0.1),
        noise_multiplier=0.0,
        target_unclipped_quantile=0.7,
        clipbound_learning_rate=0.2,
        max_clipbound=1e9,
        min_clipbound=1e-9,
        unclipped_num_std=1e-12,
        max_grad_norm=torch.tensor(1.0),
        expected_batch_size=6,
    )
    ours = QuantileThreshold(1.0, 0.7, 0.2, batch_size=6, count_noise=0.0)
    random = torch.Generator().manual_seed(0)
    for _ in range(15):
        gradients = torch.randn(6, 3, generator=random)
        unclipped = int((gradients.norm(dim=1) + 1e-6 <= ours.value).sum())
        ours.update(unclipped, 6, noise=0.0)
        p.grad_sample = gradients
        opacus.step()
        opacus.zero_grad()
        assert ours.value == pytest.approx(float(opacus.max_grad_norm), rel=1e-5)
    assert ours.value != pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("gone", [0, 3, 8])
def test_a_record_without_a_gradient_is_not_counted(gone):
    """So that its neighbour by zeroing out moves the count by half as well."""
    private = training(mechanism={"clipping": "adaptive"}, noise_multiplier=2.0, count_noise=5.0)
    told = []
    private.quantile.update = lambda unclipped, records, noise: told.append((unclipped, records))
    sampler = private.plan.sampler(Seeded(0))
    private.monitor.drew(sampler, torch.arange(8))
    x = torch.randn(8, 30, dtype=torch.float64)
    weight = 1e-6 * (torch.arange(8) >= gone)  # the others are shorter than the threshold
    private.backward(weight * private.model(x).square().sum(1))
    private.step()
    assert told == [(8 - gone, 8 - gone)]


def test_one_record_moves_the_noised_count_by_half():
    """What Theorem 1 of Andrew et al. rests on; counting 0 or 1 would move it by one."""

    def share(unclipped, records):
        threshold = QuantileThreshold(1.0, 0.5, 1.0, batch_size=10, count_noise=0.0)
        threshold.update(unclipped, records, noise=0.0)
        return 0.5 - math.log(threshold.value)

    assert share(4, 7) - share(3, 6) == pytest.approx(0.5 / 10)
    assert share(3, 7) - share(3, 6) == pytest.approx(-0.5 / 10)


def test_the_count_of_clipped_gradients_has_the_planned_noise():
    """Of empty batches it is all that moves the threshold."""
    private = training(mechanism={"clipping": "adaptive"}, count_noise=5.0, epochs=40)
    logarithms = [math.log(0.5)]
    for _ in range(200):
        go(private, batch=0)
        logarithms.append(math.log(private.quantile.value))
    moves = torch.tensor(logarithms).diff()
    assert moves.std().item() == pytest.approx(0.2 * 5.0 / 8, rel=0.15)
    assert abs(moves.mean().item()) < 4 * 0.2 * 5.0 / 8 / 200**0.5


def test_the_adaptive_threshold_follows_the_norms_and_its_noise_them():
    private = training(
        lambda p: torch.optim.SGD(p, lr=1e-6),  # the norms shall stay what they are
        mechanism={"clipping": "adaptive"},
        noise_multiplier=1.0,
        count_noise=5.0,
        epochs=40,
    )
    for _ in range(150):
        go(private, scale=0.01)
    norms, _ = private.gradient_norms()
    assert private.quantile.value == pytest.approx(norms[-400:].median().item(), rel=0.35)
    assert private.record()["adapted_threshold"] == private.quantile.value
    sigma = (1.0**-2 - (2 * 5.0) ** -2) ** -0.5
    noise = 1e6 * torch.cat([moved.flatten() for moved in go(private, batch=0)])
    assert noise.std().item() == pytest.approx(sigma * private.engine.thresholds[0] / 8, rel=0.06)


def test_divided_by_the_nominal_size_not_by_opacus_truncation():
    """N = 88, b = 10: int(N / ceil(N / b)) is 9 in Opacus 1.6; ours is 10, public and fixed."""
    private = training(num_records=88, batch_size=10, noise_multiplier=1e-9)
    x = torch.randn(1, 30, dtype=torch.float64)
    private.monitor.drew(private.plan.sampler(Seeded(0)), torch.arange(1))
    before = private.model[2].bias.detach().clone()
    private.backward(1000 * private.model(x)[:, 0])
    private.step()
    moved = before - private.model[2].bias.detach()
    norms, _ = private.gradient_norms()
    assert moved[0].item() == pytest.approx(0.5 * 1000 / norms.item() / 10, rel=1e-6)
