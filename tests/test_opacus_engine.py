"""The Opacus engine against a loop over samples, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmedbench import mechanisms, models
from dpmedbench.errors import UserError
from dpmedbench.losses import segmentation_loss
from dpmedbench.privacy.contract import ContractMonitor
from dpmedbench.privacy.plan import PrivacyPlan, thresholds

CLASSES = 3


def network():
    torch.manual_seed(0)
    return models.build("unet", 1, CLASSES, features=[4, 8], num_groups=2).double()


def batch(size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, CLASSES, (size, 8, 8), generator=generator, dtype=torch.uint8)


def plan_for(model, style="flat", r=0.5, sigma=1.0, batch_size=4):
    tensors = len(list(model.parameters()))
    return PrivacyPlan(
        unit="image",
        neighbouring="add_remove",
        num_records=20,
        batch_size=batch_size,
        epochs=2,
        noise_multiplier=sigma,
        thresholds=thresholds(r, style, "scaled", tensors),
        delta=1e-3,
        accountant="rdp",
    )


def engine_for(model, plan, lr=1.0):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    monitor = ContractMonitor(plan, model, plan.num_records)
    monitor._batch = 10**6  # the bound on the clipped sum is tested with the monitor
    generator = torch.Generator().manual_seed(7)
    return mechanisms.load("opacus").build(model, optimizer, plan, monitor, generator)


def clipped_by_hand(model, images, targets, plan):
    """The sum of clipped gradients, one sample after the other."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for image, target in zip(images, targets, strict=True):
        loss = segmentation_loss(model(image[None]), target[None]).sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        norms = torch.stack([g.norm() for g in gradient])
        if len(plan.thresholds) == 1:
            factors = (plan.thresholds[0] / (norms.norm() + 1e-6)).clamp(max=1).expand(len(norms))
        else:
            factors = (norms.new_tensor(plan.thresholds) / (norms + 1e-6)).clamp(max=1)
        for t, g, f in zip(total, gradient, factors, strict=True):
            t += f * g
    return total


def updates(style, images, targets, split, sigma=None, r=0.5):
    """What one step takes from the weights, and what the loop says; no noise to speak of."""
    model = network()
    sigma = sigma or 1e-14 / r
    plan = plan_for(model, style, r=r, sigma=sigma)
    expected = clipped_by_hand(model, images, targets, plan)
    before = [p.detach().clone() for p in model.parameters()]
    engine = engine_for(model, plan)
    parts = list(zip(images.split(split), targets.split(split), strict=True))
    for number, (x, y) in enumerate(parts, start=1):
        engine.backward(segmentation_loss(engine.model(x), y), last=number == len(parts))
    engine.step()
    moved = [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]
    return moved, [t / plan.batch_size for t in expected], engine


@pytest.mark.parametrize("style", ["flat", "per_layer"])
@pytest.mark.parametrize("r", [0.01, 0.5, 100.0])
@pytest.mark.parametrize("split", [5, 2, 1])
def test_equal_to_a_loop_over_samples(style, r, split):
    """Divided by the expected batch size (4), not by the five samples that came."""
    moved, expected, _ = updates(style, *batch(5), split, r=r)
    for found, wanted in zip(moved, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6), r=st.floats(0.01, 5), style=st.sampled_from(["flat", "per_layer"])
)
def test_one_record_moves_the_sum_by_at_most_the_sensitivity(seed, r, style):
    """Neighbours by removal: the sums differ by no more than the plan's sensitivity."""
    model = network()
    plan = plan_for(model, style, r=r)
    images, targets = batch(3, seed)
    images = images * 10
    with_it = clipped_by_hand(model, images, targets, plan)
    engine = engine_for(model, plan)
    engine.backward(segmentation_loss(engine.model(images[:2]), targets[:2]), last=True)
    engine.optimizer.clip_and_accumulate()
    difference = [a - p.summed_grad for a, p in zip(with_it, engine.optimizer.params, strict=True)]
    assert math.sqrt(sum(float(d.square().sum()) for d in difference)) <= plan.sensitivity * (
        1 + 1e-9
    )


def test_under_autocast_clipped_gradients_stay_below_the_threshold():
    """Norms of bfloat16 gradients are taken in float32."""
    model = network().float()
    plan = plan_for(model, r=1e-3)
    engine = engine_for(model, plan)
    for image, target in zip(*batch(8), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = segmentation_loss(engine.model(image[None].float()), target[None])
        engine.backward(loss, last=False)
        sums = [p.summed_grad for p in engine.optimizer.params]
        norm = math.sqrt(sum(float(s.double().square().sum()) for s in sums))
        assert norm == pytest.approx(1e-3, rel=2e-3)  # Opacus divides by norm + 1e-6
        assert norm <= 1e-3 * (1 + 1e-6)
        for parameter in engine.optimizer.params:
            parameter.summed_grad = None


@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_an_empty_batch_moves_the_weights_by_noise_alone(style):
    model = network()
    plan = plan_for(model, style, sigma=3.0)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    engine = engine_for(model, plan)
    engine.step()
    moved = before - torch.cat([p.detach().flatten() for p in model.parameters()])
    assert moved.std().item() == pytest.approx(plan.noise_std / plan.batch_size, rel=0.1)
    assert engine.monitor.observed.steps == 1


@pytest.mark.parametrize("style", ["flat", "per_layer"])
def test_noise_has_the_planned_standard_deviation(style):
    moved, expected, engine = updates(style, *batch(4), split=4, sigma=2.0)
    noise = torch.cat([(m - e).flatten() for m, e in zip(moved, expected, strict=True)])
    plan = engine.monitor.plan
    assert noise.std().item() == pytest.approx(plan.noise_std / plan.batch_size, rel=0.1)


def test_norms_are_those_of_the_samples():
    images, targets = batch(4)
    _, _, engine = updates("flat", images, targets, split=3, r=0.5)
    norms, clipped = engine.gradient_norms()
    model = network()
    for norm, image, target in zip(norms, images, targets, strict=True):
        loss = segmentation_loss(model(image[None]), target[None]).sum()
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        wanted = torch.cat([g.flatten() for g in gradient]).norm()
        assert norm.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert clipped.tolist() == (norms > 0.5).tolist()
    assert engine.gradient_norms() is None


def test_noise_goes_on_from_its_state():
    first, again = network(), network()
    plan = plan_for(first)
    one, two = engine_for(first, plan), engine_for(again, plan)
    one.step()
    state = one.state()
    one.step()
    two.restore(state)
    again.load_state_dict(network().state_dict())
    two.step()
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert not torch.equal(a, b)  # one made two steps
    assert torch.equal(one.state()["generator"], two.state()["generator"])


def test_a_layer_that_opacus_cannot_do_is_named():
    norm = torch.nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), norm)
    with pytest.raises(UserError, match=r"cannot make layer 1 \(InstanceNorm2d\) private"):
        engine_for(model, plan_for(model))
