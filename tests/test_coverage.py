"""Every trainable tensor of every network gets clipped gradients and noise from every engine."""

from dataclasses import replace

import pytest
import torch
import zoo
from plans import PLAN

from dpmedbench import mechanisms, support
from dpmedbench.config import Mechanism
from dpmedbench.dpsgd.training import build
from dpmedbench.privacy.contract import ContractMonitor
from dpmedbench.privacy.plan import thresholds
from dpmedbench.privacy.randomness import Seeded

WAYS = [
    (engine, mode, clipping, style)
    for engine in mechanisms.names()
    if mechanisms.capabilities(engine).private
    for mode, able in mechanisms.capabilities(engine).modes.items()
    for clipping, style in sorted(able.combinations)
]


def private(name, engine, mode, clipping, style, sigma):
    """Training of a small network, with its data and losses."""
    if why := mechanisms.missing(engine):
        pytest.skip(why)
    model, inputs, targets, losses = zoo.case(name, batch=4)
    model.float()
    plan = replace(
        PLAN,
        sampling="fixed_size",
        neighbouring="replace_one",
        num_records=4,
        batch_size=4,
        epochs=2,
        noise_multiplier=sigma,
        thresholds=thresholds(
            1.0, style, "scaled", sum(p.requires_grad for p in model.parameters())
        ),
        count_noise=sigma if clipping == "adaptive" else None,
    )
    mechanism = Mechanism(engine=engine, mode=mode, clipping=clipping, clipping_style=style)
    monitor = ContractMonitor(plan, model, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = build(
        mechanism.model_dump(), model, optimizer, plan, monitor, Seeded(3), torch.Generator()
    )
    return training, inputs.float(), targets, losses


def step(training, inputs, targets, losses):
    """One step, watched by the monitor; what it took from each trainable tensor."""
    monitor = training.monitor
    monitor.drew(training.plan.sampler(Seeded(0)), torch.arange(len(inputs)))
    before = [p.detach().clone() for p in training.engine.parameters]
    training.backward(losses(training.model(inputs), targets))
    training.step()
    return [b - p.detach() for b, p in zip(before, training.engine.parameters, strict=True)]


@pytest.mark.parametrize("name", zoo.networks())
@pytest.mark.parametrize(("engine", "mode", "clipping", "style"), WAYS)
def test_every_tensor_moves_and_gets_noise(name, engine, mode, clipping, style):
    """The monitor raises for a tensor without noise; without noise each moves by its gradient."""
    noised = private(name, engine, mode, clipping, style, sigma=1.0)
    assert all(m.any() for m in step(*noised))
    assert noised[0].monitor.observed.noise_additions == len(noised[0].engine.parameters)
    names = [n for n, p in noised[0].model.named_parameters() if p.requires_grad]
    assert len(noised[0].engine.parameters) == len(names)
    silent = private(name, engine, mode, clipping, style, sigma=1e-7)
    still = [n for n, m in zip(names, step(*silent), strict=True) if m.abs().max() < 1e-7]
    assert still == []


def test_the_table_of_the_documentation_has_every_engine_and_mode():
    lines = support.table()
    rows = [line.split(" | ")[:2] for line in lines[2:]]
    assert [[engine.strip("| `"), mode.strip("`")] for engine, mode in rows] == [
        [engine, mode]
        for engine in mechanisms.names()
        if mechanisms.capabilities(engine).private
        for mode in mechanisms.capabilities(engine).modes
    ]
    assert "| `bookkeeping` | `mix_opt` | yes | yes | yes | yes | yes | yes |" in lines
    assert "| `opacus` | `ghost` | yes | yes | yes | - | - | - |" in lines


def test_an_engine_that_is_not_installed_is_left_out_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert mechanisms.missing("bookkeeping") is None
    why = mechanisms.missing("fastdp")
    assert why.startswith("fastDP is not installed; run pip install")
