"""Optimisers and schedules: each gets what the configuration says."""

import pytest
import torch

from dpmedbench.optimization import make_optimizer, make_scheduler

OPTIONS = {"learning_rate": 0.2, "weight_decay": 0.01, "momentum": 0.9, "schedule": "constant"}
KINDS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_has_its_options_and_trains_what_is_not_frozen(kind):
    network = torch.nn.Linear(2, 3)
    network.bias.requires_grad_(False)
    optimizer = make_optimizer(network, OPTIONS | {"optimizer": kind})
    (group,) = optimizer.param_groups
    assert type(optimizer) is KINDS[kind]
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.01)
    assert group.get("momentum") == (0.9 if kind in ("rmsprop", "sgd") else None)
    assert [id(parameter) for parameter in group["params"]] == [id(network.weight)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.2, 0.2, 0.2]), ("cosine", [0.2, 0.1, 0.0])],
)
def test_a_schedule_at_the_beginning_in_the_middle_and_at_the_end(schedule, expected):
    optimizer = make_optimizer(torch.nn.Linear(2, 3), OPTIONS | {"optimizer": "sgd"})
    scheduler = make_scheduler(optimizer, OPTIONS | {"schedule": schedule}, 10)
    rates = []
    for _ in range(11):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates[::5] == pytest.approx(expected)
