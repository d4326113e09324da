"""Noise schedules against those of Opacus, and the sentences for wrong ones."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.schedulers import ExponentialNoise, LambdaNoise, StepNoise

from dpmedbench.privacy import schedules


def opacus(kind, epochs, **options):
    """The factors that a scheduler of Opacus gives, one `step` an epoch."""
    optimizer = SimpleNamespace(noise_multiplier=1.0)
    scheduler = kind(optimizer, **options)
    found = []
    for _ in range(epochs):
        found.append(optimizer.noise_multiplier)
        scheduler.step()
    return pytest.approx(found)


@given(gamma=st.floats(0.5, 1.5), epochs=st.integers(1, 60), every=st.integers(1, 20))
def test_schedules_are_those_of_opacus(gamma, epochs, every):
    assert schedules.factors("constant", epochs) == (1.0,) * epochs
    assert schedules.factors("exponential", epochs, gamma=gamma) == opacus(
        ExponentialNoise, epochs, gamma=gamma
    )
    assert schedules.factors("step", epochs, gamma=gamma, every=every) == opacus(
        StepNoise, epochs, gamma=gamma, step_size=every
    )
    for kind in ("linear", "cosine"):
        rule = schedules.SCHEDULES[kind]
        assert schedules.factors(kind, epochs, final=gamma) == opacus(
            LambdaNoise, epochs, noise_lambda=lambda e, rule=rule: rule(e, epochs, final=gamma)
        )


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_named_schedules_go_from_one_to_the_final_factor(kind):
    found = schedules.factors(kind, 11, final=0.5)
    assert found[0] == 1
    assert found[5] == pytest.approx(0.75)
    assert found[-1] == pytest.approx(0.5)
    assert sorted(found, reverse=True) == list(found)
    assert schedules.factors(kind, 1, final=0.5) == (1.0,)


def test_a_new_schedule_is_one_function(monkeypatch):
    def root(epoch: int, epochs: int, *, power: float) -> float:
        return (epoch + 1) ** -power

    monkeypatch.setitem(schedules.SCHEDULES, "root", root)
    assert schedules.options("root") == {"power": float}
    assert schedules.factors("root", 4, power=0.5)[-1] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("kind", "given_options", "sentence"),
    [
        ("square", {}, "kind is 'square', allowed are constant, exponential, step, linear"),
        ("step", {"gamma": 0.9}, r"has options \['gamma'\], expected exactly \['every', 'gamma'\]"),
        ("constant", {"gamma": 0.9}, "expected exactly none"),
        ("step", {"gamma": 0.9, "every": 2.5}, "every is 2.5, expected a whole number above 0"),
        ("step", {"gamma": 0.9, "every": 0}, "every is 0, expected a whole number above 0"),
        ("exponential", {"gamma": -1}, "gamma is -1, expected a number above 0"),
        ("exponential", {"gamma": "x"}, "gamma is 'x'"),
        ("exponential", {"gamma": math.nan}, "gives factor nan in epoch 2"),
        ("exponential", {"gamma": 1e-9}, "gives factor 0 in epoch"),
        ("exponential", {"gamma": 1e9}, "gives factor inf in epoch"),
    ],
)
def test_wrong_schedules_are_refused_in_one_sentence(kind, given_options, sentence):
    with pytest.raises(ValueError, match=sentence):
        schedules.factors(kind, 60, **given_options)
