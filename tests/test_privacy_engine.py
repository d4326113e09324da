"""The two-line way into Book-Keeping, as a user of Opacus would try it."""

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from per_sample_loop import clipped_sums
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from two_lines import data, network, private, step

from dpmedbench.bookkeeping import PrivacyEngine
from dpmedbench.bookkeeping.criterion import PrivateCriterion
from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting

DOCS = Path(__file__).parents[1] / "docs" / "bookkeeping.md"


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 8), ("sum", 1)])
@pytest.mark.parametrize("size", [2, 5])
def test_an_update_is_the_clipped_sum_over_the_expected_size(reduction, divisor, clipping, size):
    """Five records came; the update is divided by the eight that were expected."""
    images, labels = (part[:5] for part in data())
    thresholds = (0.5,) if clipping == "flat" else (0.25,) * 4
    losses = nn.CrossEntropyLoss(reduction="none")
    wanted = clipped_sums(network(), losses, images, labels, "abadi", thresholds)
    model, optimizer, criterion, _ = private(
        criterion=nn.CrossEntropyLoss(reduction=reduction),
        loss_reduction=reduction,
        clipping=clipping,
    )
    batches = zip(images.split(size), labels.split(size), strict=True)
    for moved, total in zip(step(model, optimizer, criterion, batches), wanted, strict=True):
        torch.testing.assert_close(moved, total / divisor, rtol=1e-9, atol=1e-15)


def test_the_loss_is_the_ordinary_one():
    images, labels = data()
    model, _, criterion, _ = private()
    plain = nn.functional.cross_entropy(model(images), labels).item()
    assert criterion(model(images), labels).item() == pytest.approx(plain)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss()])
@pytest.mark.parametrize(
    ("outputs", "targets"), [((4, 1), (4,)), ((1, 1), (1,)), ((4, 4), (4,)), ((4,), (4, 1))]
)
def test_targets_that_broadcast_over_samples_are_refused(criterion, outputs, targets):
    """The loss of each sample would hold the targets of all."""
    private_criterion = PrivateCriterion(criterion, "mean")
    with pytest.raises(UserError, match=r"^criterion: found outputs of shape .* which mixes sampl"):
        private_criterion(torch.zeros(outputs), torch.zeros(targets))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("criterion", "outputs", "targets"),
    [
        (nn.MSELoss(), (2,), torch.zeros(2)),
        (nn.CrossEntropyLoss(), (3,), torch.tensor(1)),
        (nn.CrossEntropyLoss(), (3,), torch.full((3,), 1 / 3)),
        (nn.CrossEntropyLoss(), (3, 3, 3), torch.ones(3, 3, dtype=torch.long)),
        (nn.CrossEntropyLoss(), (3, 2, 2), torch.full((3, 2, 2), 1 / 3)),
    ],
)
def test_targets_of_other_shapes_have_one_loss_a_sample(criterion, outputs, targets, batch):
    repeated = targets.expand(batch, *targets.shape)
    losses = PrivateCriterion(criterion, "mean")(torch.zeros(batch, *outputs), repeated).losses
    assert losses.shape == (batch,)


def test_positions_that_are_ignored_do_not_count():
    torch.manual_seed(0)
    model = nn.Conv2d(1, 3, 1).double()
    targets = torch.randint(3, (4, 6, 6))
    targets[:, :3] = 255
    _, _, criterion, _ = private(model, nn.CrossEntropyLoss(ignore_index=255))
    images = data(4)[0]
    whole = criterion(model(images), targets).losses
    half = nn.functional.cross_entropy(
        model(images)[:, :, 3:], targets[:, 3:], reduction="none"
    ).mean((1, 2))
    torch.testing.assert_close(whole, half)


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize("secure", [False, True])
def test_the_noise_has_the_planned_size(secure, clipping):
    model = nn.Linear(100, 200).double()
    engine = PrivacyEngine(secure_rng=secure)
    images = torch.zeros(0, 100, dtype=torch.float64)
    model, optimizer, criterion, _ = private(
        model,
        lambda outputs, _: outputs.sum(1),
        engine=engine,
        noise_multiplier=3.0,
        clipping=clipping,
    )
    moved = step(model, optimizer, criterion, [(images, images)])[0]
    assert moved.std().item() == pytest.approx(3.0 * 0.5 / 8, rel=0.03)


def test_noise_and_batches_do_not_share_a_stream():
    engine = PrivacyEngine()
    private(engine=engine)
    state = engine.state_dict()
    assert not torch.equal(state["noise"]["host"], state["sampling"]["host"])


def test_epsilon_is_that_of_the_steps_made():
    engine = PrivacyEngine(accountant="rdp")
    assert engine.get_epsilon(1e-3) == 0
    model, optimizer, criterion, loader = private(engine=engine, noise_multiplier=1.0)
    for images, labels in loader:
        step(model, optimizer, criterion, [(images, labels)])
    assert engine.steps == len(loader) == 3
    assert engine.get_epsilon(1e-3) == accounting.epsilon("rdp", ((1.0, 3),), 1 / 3, 1e-3)


def test_a_target_epsilon_is_met():
    engine = PrivacyEngine(accountant="rdp")
    model = network()
    model, optimizer, criterion, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(TensorDataset(*data()), batch_size=8),
        target_epsilon=4.0,
        target_delta=1e-3,
        epochs=2,
        max_grad_norm=1.0,
    )
    for _ in range(2):
        for images, labels in loader:
            step(model, optimizer, criterion, [(images, labels)])
    assert 3.9 < engine.get_epsilon(1e-3) <= 4.0


def test_without_noise_nothing_is_promised():
    engine = PrivacyEngine()
    model, optimizer, criterion, _ = private(engine=engine)
    step(model, optimizer, criterion, [data()])
    assert engine.get_epsilon(1e-3) == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_reduction": "sum"}, "criterion: found reduction 'mean', but loss_reduction is 's"),
        ({"loss_reduction": "none"}, "loss_reduction: found 'none', expected mean or sum"),
        ({"criterion": nn.CrossEntropyLoss(weight=torch.ones(3))}, "found class weights with red"),
        ({"criterion": lambda o, t: o.mean()}, r"losses: found shape \(\), expected \(B,\)"),
        ({"grad_sample_mode": "hooks"}, "mode: found 'hooks', expected one of mix_opt"),
        ({"criterion": nn.KLDivLoss(reduction="batchmean")}, "criterion: found reduction 'batchm"),
        ({"clipping": "adaptive"}, "clipping: found 'adaptive', expected flat or per_layer"),
        ({"clipping_function": "adaptive"}, "clipping_function: found 'adaptive', expected one of"),
        ({"max_grad_norm": 0.0}, "max_grad_norm: found 0.0, expected numbers above 0"),
        (
            {"max_grad_norm": [1, 1, -1, 1], "clipping": "per_layer"},
            r"max_grad_norm: found \[1, 1, -1, 1\], expected numbers above 0",
        ),
        ({"noise_multiplier": -1.0}, "noise_multiplier: found -1.0, expected a number of at leas"),
        ({"max_grad_norm": [1.0, 1.0]}, "max_grad_norm: found 2 values for flat clipping of 4"),
        ({"batch_size": 25}, "data_loader: found batch_size 25 for 24 records, expected 1 to 24"),
    ],
)
def test_mistakes_are_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        step(*private(**options)[:3], [data()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_epsilon": 0.0}, "target_epsilon: found 0.0, expected a number above 0"),
        ({"target_epsilon": math.inf}, "target_epsilon: found inf, expected a number above 0"),
        ({"target_delta": 1.0}, "target_delta: found 1.0, expected a number between 0 and 1"),
        ({"target_delta": 0.0}, "target_delta: found 0.0, expected a number between 0 and 1"),
        ({"epochs": 0}, "epochs: found 0, expected a whole number above 0"),
        ({"epochs": 1.5}, "epochs: found 1.5, expected a whole number above 0"),
    ],
)
def test_mistakes_in_a_target_are_one_sentence(options, message):
    given = {"target_epsilon": 4.0, "target_delta": 1e-3, "epochs": 2} | options
    with pytest.raises(UserError, match=message):
        PrivacyEngine().make_private_with_epsilon(data_loader=None, **given)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 2.0, math.nan])
def test_a_delta_that_is_no_probability_has_no_epsilon(delta):
    with pytest.raises(UserError, match=r"delta: found .*, expected a number between 0 and 1"):
        PrivacyEngine().get_epsilon(delta)


@pytest.mark.parametrize(
    "made",
    [lambda loss: loss + loss, lambda loss: loss / 2, lambda loss: 0.5 * loss, lambda x: sum([x])],
)
def test_arithmetic_with_a_loss_is_refused_and_the_way_named(made):
    model, _, criterion, _ = private()
    images, labels = data(4)
    with pytest.raises(
        UserError, match=r"loss: found arithmetic .* write sums and weights into the"
    ):
        made(criterion(model(images), labels))


def test_what_make_private_gave_is_not_made_private_again():
    """As in a notebook whose cell runs twice."""
    model, optimizer, criterion, loader = private()
    given = {"module": model, "optimizer": optimizer, "noise_multiplier": 1.0, "max_grad_norm": 1.0}
    with pytest.raises(UserError, match=r"data_loader: found none with a batch_size .* make_priv"):
        PrivacyEngine().make_private(criterion=criterion, data_loader=loader, **given)
    plain = DataLoader(TensorDataset(*data()), batch_size=8)
    with pytest.raises(UserError, match="criterion: found one that make_private gave before"):
        PrivacyEngine().make_private(criterion=criterion, data_loader=plain, **given)


def test_the_optimizer_must_hold_just_what_is_trained():
    model = network()
    loader = DataLoader(TensorDataset(*data()), batch_size=8)
    arguments = {
        "module": model,
        "criterion": nn.CrossEntropyLoss(),
        "data_loader": loader,
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
    }
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"optimizer: parameter 2\.bias of the module is not in it"):
        PrivacyEngine().make_private(optimizer=optimizer, **arguments)
    more = [*model.parameters(), nn.Parameter(torch.ones(1))]
    with pytest.raises(UserError, match="optimizer: 1 of its parameters are no trainable ones"):
        PrivacyEngine().make_private(optimizer=torch.optim.SGD(more, lr=0.1), **arguments)


@pytest.mark.parametrize("trainable", [True, False])
def test_what_is_frozen_stays_so(trainable):
    model = network()
    model[0].requires_grad_(not trainable)
    _, optimizer, criterion, _ = private(model)
    model[0].requires_grad_(trainable)
    if trainable:
        optimizer.add_param_group({"params": model[0].parameters()})
    with pytest.raises(UserError, match="module: found parameters that were frozen or unfrozen"):
        step(model, optimizer, criterion, [data(8)])


def test_a_gradient_that_is_not_finite_is_told():
    model, optimizer, criterion, _ = private(noise_multiplier=1.0)
    images, labels = data(8)
    images[3, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match="found 1 records whose gradient is not finite"):
        step(model, optimizer, criterion, [(images, labels)])
    optimizer.step()  # of one who goes on all the same: noise alone
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_run_goes_on_from_its_state():
    """Epsilon counts all steps, and no noise comes twice."""

    def made():
        engine = PrivacyEngine(accountant="rdp")
        return engine, private(engine=engine, noise_multiplier=1.0)

    def train(model, optimizer, criterion, loader):
        for images, labels in loader:
            step(model, optimizer, criterion, [(images, labels)])

    engine, whole = made()
    train(*whole)
    half, state = [p.detach().clone() for p in whole[0].parameters()], engine.state_dict()
    train(*whole)
    resumed, again = made()
    resumed.load_state_dict(state)
    with torch.no_grad():
        for parameter, value in zip(again[0].parameters(), half, strict=True):
            parameter.copy_(value)
    train(*again)
    assert resumed.steps == engine.steps == 6
    assert resumed.get_epsilon(1e-3) == engine.get_epsilon(1e-3)
    for one, other in zip(whole[0].parameters(), again[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    other = PrivacyEngine()
    private(engine=other, noise_multiplier=2.0)
    with pytest.raises(UserError, match="state: found noise_multiplier 1, expected 2"):
        other.load_state_dict(state)


def test_without_a_seed_no_noise_comes_twice():
    """Two runs that go on from one state, as after a crash, draw each their own."""
    first, seeded = PrivacyEngine(), PrivacyEngine()
    private(engine=first, noise_multiplier=1.0, seed=None)
    private(engine=seeded, noise_multiplier=1.0)
    assert first.state_dict()["noise"] is None
    drawn, batches = [], []
    for state in (first.state_dict(), first.state_dict(), seeded.state_dict()):
        engine = PrivacyEngine()
        loader = private(engine=engine, noise_multiplier=1.0, seed=None)[3]
        engine.load_state_dict(state)
        drawn.append(engine._noise().normal((50,), torch.float64, "cpu"))
        batches.append(list(loader.batch_sampler))
    drawn.append(seeded._noise().normal((50,), torch.float64, "cpu"))
    batches.append(list(private()[3].batch_sampler))
    for one, other in itertools.combinations(range(4), 2):
        assert not torch.equal(drawn[one], drawn[other])
        assert batches[one] != batches[other]


def test_no_state_takes_steps_back():
    engine = PrivacyEngine()
    model, optimizer, criterion, _ = private(engine=engine, noise_multiplier=1.0)
    state = engine.state_dict()
    step(model, optimizer, criterion, [data(8)])
    with pytest.raises(UserError, match="PrivacyEngine: found 1 steps made, which a state would f"):
        engine.load_state_dict(state)
    assert engine.steps == 1


def test_no_noise_is_calibrated_to_an_approximation():
    with pytest.raises(UserError, match="accountant: found gdp, an approximation"):
        PrivacyEngine(accountant="gdp").make_private_with_epsilon(
            target_epsilon=4.0, target_delta=1e-3, epochs=2, data_loader=None
        )


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_is_refused(optimizer):
    """It would compute gradients after the noise was added."""
    model, made, criterion, loader = private(optimizer=optimizer, lr=0.1, noise_multiplier=1.0)
    images, labels = next(iter(loader))

    def closure():
        loss = criterion(model(images), labels)
        loss.backward()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(UserError, match=r"optimizer.step\(\): found a closure, whose gradients"):
        made.step(closure)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_an_engine_serves_one_run():
    engine = PrivacyEngine()
    private(engine=engine)
    with pytest.raises(UserError, match="found one already in use"):
        private(engine=engine)


def test_the_code_of_the_documentation_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 3
    exec("\n".join(blocks), {})
    assert re.search(r"epsilon \d+\.\d\d", capsys.readouterr().out)
