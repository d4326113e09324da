"""The training loop: what it measures and what it refuses."""

import itertools
import math

import pytest
import torch
from little_cells import (
    BOOKKEEPING,
    EXECUTION,
    PRIVATE,
    SPARSIFIED,
    data,
    same_weights,
    settings,
    spoilt,
    stop_after,
    trained,
)

from dpmedbench import checkpoint, cost, outcome
from dpmedbench.bookkeeping import BookKeeper
from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting
from dpmedbench.privacy.contract import ContractBroken
from dpmedbench.privacy.randomness import Seeded
from dpmedbench.privacy.sampling import ShuffledSampler
from dpmedbench.training import Trainer

ADAPTIVE = BOOKKEEPING | {"clipping": "adaptive"}
SCHEDULED = PRIVATE | {"noise_schedule": {"kind": "exponential", "options": {"gamma": 0.5}}}


def test_ordinary_training_learns_and_records(tmp_path):
    cell = trained(tmp_path, epochs=30)
    first, last = cell.history[0], cell.history[-1]
    assert last["train_loss"] < 0.5 * first["train_loss"]
    assert last["val_dice"] > 0.6 > last["constant_val_dice"]
    assert last["samples"] == 8
    assert last["step"] == 60
    assert math.isnan(last["grad_norm_p50"])
    assert math.isnan(last["effective_max_grad_norm"])
    assert all(row["epsilon"] == math.inf for row in outcome.history(cell))
    parts = [(row["seconds"], row["validation_seconds"]) for row in cell.history]
    assert all(min(part) > 0 for part in parts)
    elapsed = list(itertools.accumulate(map(sum, parts)))
    assert [row["elapsed_seconds"] for row in cell.history] == pytest.approx(elapsed)


def test_every_purpose_of_every_run_has_a_stream_of_its_own(tmp_path):
    """Noise that repeated the draws of the batches would not hide them; folds that shared it would
    seem more alike than two trainings are."""
    seeds, weights = [], []
    for fold, number in ((0, 0), (0, 1), (1, 0)):
        wanted = settings(SPARSIFIED)
        wanted["identity"] |= {"fold": fold, "seed": number}
        cell = Trainer(wanted, EXECUTION, data(), tmp_path)
        noise, batches = cell.engine.randomness, cell.sampler.randomness
        generators = (noise.host, batches.host, cell.engine.sparsifier.generator)
        seeds += [generator.initial_seed() for generator in generators]
        weights.append(cell.network.state_dict())
    assert len(set(seeds)) == 9
    assert not any(same_weights(*pair) for pair in itertools.combinations(weights, 2))


def test_the_learning_rate_follows_its_schedule(tmp_path):
    """Two of six steps an epoch, of which a row has the rate of the second."""
    rates = [row["learning_rate"] for row in trained(tmp_path, schedule="cosine").history]
    made = [0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(made[1::2])


def test_private_training_keeps_its_contract_and_counts_epsilon(tmp_path):
    cell = trained(tmp_path, PRIVATE)
    rows = outcome.history(cell)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[0]["epsilon"] < rows[1]["epsilon"] < rows[2]["epsilon"]
    assert rows[2]["epsilon"] == rows[2]["epsilon_rdp"] == cell.plan.epsilon(6)
    assert 0 < rows[2]["grad_norm_p10"] <= rows[2]["grad_norm_p90"]
    assert 0 <= rows[2]["clipped_fraction"] <= 1
    assert cell.observed["steps"] == 6
    assert sum(row["samples"] for row in rows) == cell.observed["draws"]


def test_empty_batches_are_counted_and_add_no_sample(tmp_path):
    cell = trained(tmp_path, BOOKKEEPING, batch_size=1, epochs=2)
    empty, samples = (sum(row[key] for row in cell.history) for key in ("empty_batches", "samples"))
    assert empty == outcome.privacy(cell)["empty_batches"] > 0
    assert samples / cell.plan.steps == outcome.privacy(cell)["batch_size_realised_mean"]
    seconds = sum(row["seconds"] for row in cell.history)
    assert outcome.costs(cell)["images_per_second"] == pytest.approx(samples / seconds)


def test_epsilon_is_the_same_for_every_engine_and_network(tmp_path):
    """It depends on noise, rate, steps and delta alone."""
    cells = [trained(tmp_path / f"{i}", way) for i, way in enumerate([PRIVATE, BOOKKEEPING])]
    wide = settings(SPARSIFIED)
    wide["model"] = {"network": "nested_unet", "features": [8, 16], "num_groups": 4}
    cells.append(Trainer(wide, EXECUTION, data(), tmp_path / "wide"))
    cells[-1].run()
    one, *others = [[row["epsilon"] for row in outcome.history(cell)] for cell in cells]
    assert others == [one, one]


def test_the_accountant_is_fed_the_noise_of_each_epoch(tmp_path):
    """Half the noise each epoch: 1, 1/2, 1/4 for two steps each."""
    cell = trained(tmp_path, SCHEDULED)
    rows = outcome.history(cell)
    assert outcome.privacy(cell)["noise_schedule"] == "exponential"
    history = ((1.0, 2), (0.5, 2), (0.25, 2))
    for epoch, row in enumerate(rows, start=1):
        wanted = accounting.epsilon("rdp", history[:epoch], 0.5, 1e-3)
        assert row["epsilon"] == pytest.approx(wanted)
        assert row["epsilon"] >= accounting.epsilon("rdp", ((1.0, 2 * epoch),), 0.5, 1e-3)


def test_an_adaptive_threshold_moves_and_goes_on_where_it_was(tmp_path, monkeypatch):
    straight = trained(tmp_path / "straight", ADAPTIVE)
    threshold = straight.engine.record()["adapted_threshold"]
    assert threshold != 1.0
    assert straight.plan.count_noise == 1.0
    drawn = [row["effective_max_grad_norm"] for row in outcome.history(straight)]
    assert len({1.0, threshold, *drawn}) == 5
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", ADAPTIVE)
    monkeypatch.undo()
    again = trained(tmp_path / "killed", ADAPTIVE)
    assert again.engine.record()["adapted_threshold"] == threshold
    assert same_weights(straight.weights(), again.weights())


def test_the_count_has_the_largest_noise_of_a_schedule_unless_it_has_its_own(tmp_path):
    growing = ADAPTIVE | {"noise_schedule": {"kind": "exponential", "options": {"gamma": 2}}}
    ways = (growing, growing | {"adaptive": {"count_noise": 9}})
    cells = [Trainer(settings(way), EXECUTION, data(), tmp_path) for way in ways]
    assert [cell.plan.count_noise for cell in cells] == [4.0, 9.0]


@pytest.mark.parametrize(
    ("sampling", "neighbouring", "epsilon"),
    [
        ("fixed_size", "replace_one", None),
        ("shuffled", "zero_out", accounting.epsilon("rdp", ((1.0, 3),), 1.0, 1e-3)),
        ("shuffled", "replace_one", accounting.epsilon("rdp", ((0.5, 3),), 1.0, 1e-3)),
    ],
)
def test_other_samplers_have_their_own_accounting(tmp_path, sampling, neighbouring, epsilon):
    privacy = {"sampling": sampling, "neighbouring": neighbouring}
    cell = Trainer(settings(BOOKKEEPING, privacy), EXECUTION, data(), tmp_path)
    cell.run()
    assert [row["samples"] for row in cell.history] == [8, 8, 8]
    row = outcome.history(cell)[-1]
    assert outcome.privacy(cell)["sampling"] == sampling
    if epsilon is None:  # rdp alone has a bound, above that of Poisson batches
        assert row["epsilon_prv"] == math.inf
        assert row["epsilon"] > trained(tmp_path / "poisson", BOOKKEEPING).plan.epsilon(6)
    else:
        assert row["epsilon"] == pytest.approx(epsilon)


def test_secure_randomness_keeps_the_contract_and_never_repeats(tmp_path):
    one, other = (
        Trainer(settings(BOOKKEEPING, {"secure_rng": True}), EXECUTION, data(), tmp_path / name)
        for name in ("one", "other")
    )
    one.run(), other.run()
    assert not same_weights(one.weights(), other.weights())
    assert one.observed["noise_ratio"] == pytest.approx(1.0, rel=0.1)
    assert one.plan.epsilon(6) == other.plan.epsilon(6)
    stored = torch.load(tmp_path / "one" / checkpoint.FILE)
    assert stored["engine"]["randomness"] == stored["sampler"] == {}


def test_physical_batches_change_nothing_but_rounding(tmp_path):
    """Epsilon, batches and noise are the same; sums are added in another order."""
    whole = trained(tmp_path / "a", PRIVATE)
    parts = trained(tmp_path / "b", PRIVATE, execution={"physical_batch_size": 1})
    assert [r["samples"] for r in whole.history] == [r["samples"] for r in parts.history]
    assert outcome.privacy(whole) == outcome.privacy(parts) | {
        "noise_ratio_realised": pytest.approx(whole.observed["noise_ratio"], rel=1e-3)
    }
    for name, value in whole.weights().items():
        torch.testing.assert_close(value, parts.weights()[name], rtol=1e-3, atol=1e-4)


def test_physical_batches_of_ordinary_training_average_the_same(tmp_path):
    whole = trained(tmp_path / "a", optimizer="sgd")
    parts = trained(tmp_path / "b", execution={"physical_batch_size": 3}, optimizer="sgd")
    for name, value in whole.weights().items():
        torch.testing.assert_close(value, parts.weights()[name], rtol=1e-4, atol=1e-6)


def test_a_target_epsilon_is_met(tmp_path):
    wanted = settings(PRIVATE)
    wanted["identity"] |= {"noise_multiplier": None, "target_epsilon": 5.0, "privacy": "eps5"}
    cell = Trainer(wanted, EXECUTION, data(), tmp_path)
    cell.run()
    assert outcome.history(cell)[-1]["epsilon"] == pytest.approx(5.0, rel=0.01)
    assert outcome.history(cell)[-1]["epsilon"] <= 5.0
    assert outcome.identity(cell)["noise_multiplier"] == cell.plan.noise_multiplier


@pytest.mark.parametrize("first", [0.2, math.nan])
def test_best_validation_reports_the_best_epoch(first, tmp_path, monkeypatch):
    """An epoch whose score is not defined is not the best for ever."""
    scores = iter([first, 0.9, 0.1])
    honest = Trainer._validate
    weights = []

    def validate(self):
        weights.append(self._current_weights())
        return honest(self) | {"val_dice": next(scores)}

    monkeypatch.setattr(Trainer, "_validate", validate)
    cell = trained(tmp_path, selection="best_validation")
    assert same_weights(cell.weights(), weights[1])
    assert not same_weights(weights[1], weights[2])


def test_the_average_is_reported_where_configured(tmp_path):
    plain, averaged = trained(tmp_path / "a"), trained(tmp_path / "b", ema_decay=0.9)
    assert plain.history[-1]["train_loss"] == averaged.history[-1]["train_loss"]
    assert not same_weights(plain.weights(), averaged.weights())


def test_the_average_is_over_all_steps_and_is_what_is_validated(tmp_path, monkeypatch):
    honest, after = Trainer._step, []

    def step(self, *arguments):
        honest(self, *arguments)
        after.append({name: now.clone() for name, now in self.network.state_dict().items()})

    monkeypatch.setattr(Trainer, "_step", step)
    cell = trained(tmp_path, ema_decay=0.9)
    for name, average in cell.weights().items():
        wanted = after[0][name]
        for weights in after[1:]:
            wanted = 0.9 * wanted + 0.1 * weights[name]
        torch.testing.assert_close(average, wanted)
    cell.network.load_state_dict(cell.weights())
    cell.average = None
    assert cell._validate()["val_loss"] == pytest.approx(cell.history[-1]["val_loss"])


LOSS = r"epoch 1: found a training loss of (nan|inf), .*; lower the learning_rate \(now 1e\+30\)"


@pytest.mark.parametrize("mechanism", [None, PRIVATE, BOOKKEEPING | {"clipping": "abadi"}])
def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path, mechanism, monkeypatch):
    """In a private cell it would break the contract first."""
    spoilt(monkeypatch, lambda network: network.training)
    with pytest.raises(UserError, match=LOSS + "$") as found:
        trained(tmp_path, mechanism, learning_rate=1e30)
    assert type(found.value) is UserError


def test_half_precision_is_named_where_it_may_be_the_reason(tmp_path):
    with pytest.raises(UserError, match=LOSS + " or use precision float32"):
        trained(tmp_path, learning_rate=1e30, optimizer="sgd", precision="bfloat16")


def test_a_validation_loss_that_is_not_finite_is_one_sentence(tmp_path, monkeypatch):
    spoilt(monkeypatch, lambda network: not network.training)
    with pytest.raises(UserError, match="epoch 1: found a validation loss of nan, expected a fin"):
        trained(tmp_path)
    assert not (tmp_path / checkpoint.FILE).exists()


def test_a_shuffled_loader_in_the_loop_is_refused(tmp_path, monkeypatch):
    """The mistake of the published code: the accountant is right, the loader is the wrong one."""
    cell = Trainer(settings(PRIVATE), EXECUTION, data(), tmp_path)
    cell.sampler = ShuffledSampler(8, 4, Seeded(0))
    with pytest.raises(ContractBroken, match="ShuffledSampler"):
        cell.run()


def test_a_frozen_engine_is_refused(tmp_path):
    """An engine that forgets a tensor: it would train without noise, or not at all."""
    way = PRIVATE | {"engine": "bookkeeping"}
    cell = Trainer(settings(way), EXECUTION, data(), tmp_path)
    forgotten = cell.network.last.bias.requires_grad_(False)
    cell.engine.engine = BookKeeper(cell.network)
    forgotten.requires_grad_(True)
    with pytest.raises(ContractBroken, match="1 trainable tensors got no noise"):
        cell.run()


def test_a_step_that_tries_ways_does_not_count(tmp_path, monkeypatch):
    """Neither for the time of a step nor for the peak of memory."""
    forgotten, forget = [], cost.PeakMemory.start
    monkeypatch.setattr(
        cost.PeakMemory, "start", lambda peak: (forgotten.append(peak), forget(peak))
    )
    straight = trained(tmp_path / "a", BOOKKEEPING, epochs=2)
    assert len(forgotten) == 3  # before each epoch, and after the first step
    tried = iter([0, 0, 0, 1, *[1] * 99])  # before and after each step: in the second one
    monkeypatch.setattr(BookKeeper, "trials", property(lambda book: next(tried)))
    cell = trained(tmp_path / "b", BOOKKEEPING, epochs=2)
    assert len(cell.timer.seconds) == len(straight.timer.seconds) - 1
    assert len(forgotten) == 3 + 4
