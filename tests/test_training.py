"""The training loop: what it measures, what it refuses, and that a killed cell goes on."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from dpmedbench import (
    cells,
    checkpoint,
    cost,
    interruption,
    mechanisms,
    memory,
    outcome,
    pretrained,
    training,
)
from dpmedbench.bookkeeping import BookKeeper
from dpmedbench.config import Mechanism, Privacy, Training
from dpmedbench.errors import UserError
from dpmedbench.models.unet import UNet
from dpmedbench.privacy import accounting
from dpmedbench.privacy.contract import ContractBroken
from dpmedbench.privacy.randomness import Seeded
from dpmedbench.privacy.sampling import ShuffledSampler
from dpmedbench.training import Cell
from dpmedbench.training_data import Data

CLASSES = 3
PRIVATE = {"engine": "opacus", "clipping": "abadi", "clipping_style": "flat"}
BOOKKEEPING = {"engine": "bookkeeping", "clipping": "automatic", "clipping_style": "flat"}
SPARSIFIED = BOOKKEEPING | {"sparsification": {"final_rate": 0.9, "refresh": 2}}
EXECUTION = {"device": "cpu", "checkpoint_every": 1, "physical_batch_size": 4}
ADAPTIVE = BOOKKEEPING | {"clipping": "adaptive"}
SCHEDULED = PRIVATE | {"noise_schedule": {"kind": "exponential", "options": {"gamma": 0.5}}}


def data(records=12, seed=0):
    """Pictures whose brightness tells the class of a pixel."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, (records, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    images = (targets * 80 + rng.integers(0, 40, targets.shape)).astype(np.uint8)
    targets[:, :, -1] = 255
    half = records * 2 // 3
    return Data(
        train=(images[:half], targets[:half]),
        val=(images[half:], targets[half:]),
        task="segmentation",
        channels=1,
        num_classes=CLASSES,
        digest=f"{records}-{seed}",
    )


def settings(mechanism=None, privacy=None, **options):
    """The settings of a cell, as `cells.settings` makes them."""
    way = Mechanism(**(mechanism or {"engine": "none"})).model_dump(mode="json")
    way["mode"] = way["mode"] or mechanisms.default_mode(way["engine"])
    private = mechanisms.capabilities(way["engine"]).private
    usual = {
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
    }
    identity = {
        "study": "test",
        "dataset": "squares",
        "model": "unet",
        "mechanism": "m",
        "privacy": "sigma1" if private else "none",
        "fold": 0,
        "seed": 0,
        **{key: way[key] for key in ("engine", "mode", "clipping", "clipping_style")},
        "noise_multiplier": 1.0 if private else None,
        "target_epsilon": None,
    }
    return {
        "identity": identity,
        "model": {"network": "unet", "features": [4, 8], "num_groups": 2},
        "task": {},
        "mechanism": way,
        "privacy": Privacy(**({"delta": 1e-3, "accountant": "rdp"} | (privacy or {}))).model_dump(
            mode="json"
        )
        if private
        else {},
        "training": Training(**(usual | options)).model_dump(
            mode="json", exclude=set(cells.EXECUTION)
        ),
    }


def trained(folder, mechanism=None, records=None, execution=None, **options):
    """A cell that ran; `execution` has what is other than in EXECUTION."""
    wanted, way = settings(mechanism, **options), EXECUTION | (execution or {})
    cell = Cell(wanted, way, records or data(), Path(folder))
    cell.run()
    return cell


def stop_after(monkeypatch, epochs):
    """Die with the checkpoint of an epoch."""
    saved = checkpoint.save

    def save_and_die(*arguments):
        saved(*arguments)
        if len(arguments[2]["history"]) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


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


def test_epsilon_is_the_same_for_every_engine_and_network(tmp_path):
    """It depends on noise, rate, steps and delta alone."""
    cells = [trained(tmp_path / f"{i}", way) for i, way in enumerate([PRIVATE, BOOKKEEPING])]
    wide = settings(SPARSIFIED)
    wide["model"] = {"network": "nested_unet", "features": [8, 16], "num_groups": 4}
    cells.append(Cell(wide, EXECUTION, data(), tmp_path / "wide"))
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
    cell = Cell(settings(BOOKKEEPING, privacy), EXECUTION, data(), tmp_path)
    cell.run()
    assert [row["samples"] for row in cell.history] == [8, 8, 8]
    row = outcome.history(cell)[-1]
    assert outcome.privacy(cell)["sampling"] == sampling
    if epsilon is None:  # rdp alone has a bound, above that of Poisson batches
        assert math.isnan(row["epsilon_prv"])
        assert row["epsilon"] > trained(tmp_path / "poisson", BOOKKEEPING).plan.epsilon(6)
    else:
        assert row["epsilon"] == pytest.approx(epsilon)


def test_secure_randomness_keeps_the_contract_and_never_repeats(tmp_path):
    one, other = (
        Cell(settings(BOOKKEEPING, {"secure_rng": True}), EXECUTION, data(), tmp_path / name)
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
    cell = Cell(wanted, EXECUTION, data(), tmp_path)
    cell.run()
    assert outcome.history(cell)[-1]["epsilon"] == pytest.approx(5.0, rel=0.01)
    assert outcome.history(cell)[-1]["epsilon"] <= 5.0
    assert outcome.identity(cell)["noise_multiplier"] == cell.plan.noise_multiplier


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine"},
        {"optimizer": "adamw", "precision": "bfloat16"},
        {"optimizer": "rmsprop", "ema_decay": 0.5},
        {"selection": "best_validation"},
    ],
)
@pytest.mark.parametrize("mechanism", [None, PRIVATE, SPARSIFIED])
def test_every_option_resumes_bit_equal(tmp_path, options, mechanism, monkeypatch):
    """Stopped after the second checkpoint and started again, the cell ends as if undisturbed."""
    straight = trained(tmp_path / "straight", mechanism, **options)

    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", mechanism, **options)
    monkeypatch.undo()
    resumed = trained(tmp_path / "killed", mechanism, **options)
    assert same_weights(straight.weights(), resumed.weights())
    for one, other in zip(straight.history, resumed.history, strict=True):
        timeless = [key for key in one if "seconds" not in key]
        np.testing.assert_equal([one[k] for k in timeless], [other[k] for k in timeless])


@pytest.mark.parametrize("first", [0.2, math.nan])
def test_best_validation_reports_the_best_epoch(first, tmp_path, monkeypatch):
    """An epoch whose score is not defined is not the best for ever."""
    scores = iter([first, 0.9, 0.1])
    honest = Cell._validate
    weights = []

    def validate(self):
        weights.append(self._current_weights())
        return honest(self) | {"val_dice": next(scores)}

    monkeypatch.setattr(Cell, "_validate", validate)
    cell = trained(tmp_path, selection="best_validation")
    assert same_weights(cell.weights(), weights[1])
    assert not same_weights(weights[1], weights[2])


def test_the_average_is_reported_where_configured(tmp_path):
    plain, averaged = trained(tmp_path / "a"), trained(tmp_path / "b", ema_decay=0.9)
    assert plain.history[-1]["train_loss"] == averaged.history[-1]["train_loss"]
    assert not same_weights(plain.weights(), averaged.weights())


def test_another_way_of_execution_goes_on_from_the_checkpoint(tmp_path, monkeypatch, capsys):
    """Checkpoints further apart, smaller physical batches."""
    straight = trained(tmp_path / "straight", PRIVATE, epochs=4)
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", PRIVATE, epochs=4)
    monkeypatch.undo()
    other = {"checkpoint_every": 3, "physical_batch_size": 2}
    again = trained(tmp_path / "killed", PRIVATE, execution=other, epochs=4)
    said = capsys.readouterr().err
    assert "going on after epoch 2 from" in said
    assert "nothing left to train" not in said
    assert [row["physical_batch_size"] for row in again.history] == [4, 4, 2, 2]
    for name, value in straight.weights().items():
        torch.testing.assert_close(value, again.weights()[name], rtol=1e-3, atol=1e-4)


def test_a_cell_that_is_at_its_end_says_how_to_train_anew(tmp_path, capsys):
    trained(tmp_path)
    assert "nothing left to train" not in capsys.readouterr().err
    trained(tmp_path)
    assert f"nothing left to train; delete {tmp_path} to train anew" in capsys.readouterr().err


def test_another_fingerprint_starts_anew(tmp_path):
    trained(tmp_path, epochs=2)
    assert checkpoint.load(tmp_path, "another") is None
    fresh = Cell(settings(epochs=2, learning_rate=1e-3), EXECUTION, data(), tmp_path)
    fresh._resume()
    assert fresh.history == []


def test_other_weights_to_begin_with_start_anew(monkeypatch):
    def fingerprint(digest):
        monkeypatch.setattr(pretrained, "digest", lambda _: digest)
        return Cell(settings(), EXECUTION, data(), Path()).fingerprint

    assert fingerprint("a") == fingerprint("a") != fingerprint("b")


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit of a tensor: its file in the archive is not compressed."""
    at = content.index(torch.get_rng_state().numpy().tobytes()[-64:])
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "broken",
    [lambda _: b"", cut, flipped, lambda _: b"\x80\x04N.", lambda content: content[:-1]],
    ids=["empty", "cut", "flipped", "pickle", "last byte"],
)
def test_a_broken_checkpoint_is_named_set_aside_and_the_cell_starts_over(tmp_path, broken, capsys):
    straight = trained(tmp_path)
    path = tmp_path / checkpoint.FILE
    content = broken(path.read_bytes())
    path.write_bytes(content)
    again = trained(tmp_path)
    assert f"{path}: found no whole checkpoint (" in capsys.readouterr().err
    assert path.with_suffix(".broken").read_bytes() == content
    assert same_weights(straight.weights(), again.weights())
    assert checkpoint.load(tmp_path, again.fingerprint) is not None


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_now_is_kept(tmp_path, error, monkeypatch):
    cell = trained(tmp_path)

    def load(*arguments, **options):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)):
        checkpoint.load(tmp_path, cell.fingerprint)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path, cell.fingerprint) is not None


def test_a_checkpoint_is_of_its_moment_though_training_goes_on(tmp_path, monkeypatch):
    saved, go_on = checkpoint.save, threading.Event()

    def slow(*arguments):
        assert go_on.wait(10)
        saved(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    weight, history = torch.zeros(3), [{"epoch": 1}]
    with checkpoint.Writer(tmp_path, "x") as writer:
        writer.save({"network": {"weight": weight}, "history": history})
        weight += 1
        history.append({"epoch": 2})
        go_on.set()
    state = checkpoint.load(tmp_path, "x")
    assert state["network"]["weight"].tolist() == [0, 0, 0]
    assert state["history"] == [{"epoch": 1}]


@pytest.mark.parametrize("calls", [1, 2])
def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path, calls, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    told = pytest.raises(UserError, match="the disk is full")
    with told, checkpoint.Writer(tmp_path, "x") as writer:  # on leaving, or in the next call
        for _ in range(calls):
            writer.save({})
        if calls == 2:
            pytest.fail("the second call began to write")


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_next_epoch(tmp_path, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    cell = Cell(settings(epochs=9), EXECUTION | {"checkpoint_every": 2}, data(), tmp_path)
    epoch = cell._epoch

    def slowly(number):
        time.sleep(0.2 * (number == 3))
        return epoch(number)

    cell._epoch = slowly
    with pytest.raises(UserError, match="the disk is full"):
        cell.run()
    assert len(cell.history) == 3


def test_what_a_killed_job_left_half_written_goes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".{checkpoint.FILE}.{os.uname().nodename}.{dead.pid}.tmp"
    left.write_bytes(b"half")
    trained(tmp_path)
    assert not left.exists()


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


def spoilt(monkeypatch, when):
    """Logits that are no numbers while `when` holds."""
    forward = UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda self, x: forward(self, x) * (math.nan if when(self) else 1)
    )


GHOST = PRIVATE | {"mode": "ghost"}


def small_memory(monkeypatch, images, first_step=1):
    """No room for the backward pass of more than so many images, from a step of the job on."""
    build, steps = training.Cell._engine, []

    def engine(cell):
        made = build(cell)
        backward = made.backward

        def tight(losses):
            steps.append(len(losses))
            if len(steps) >= first_step and len(losses) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            backward(losses)

        made.backward = tight
        return made

    monkeypatch.setattr(training.Cell, "_engine", engine)


@pytest.mark.parametrize("mechanism", [None, PRIVATE, GHOST, BOOKKEEPING, SPARSIFIED])
def test_out_of_memory_halves_the_physical_batch(tmp_path, mechanism, monkeypatch, capsys):
    """Bit-equal to physical batches of that size from the start; epsilon and noise are the same."""
    halved = trained(tmp_path / "a", mechanism, execution={"physical_batch_size": 1})
    small_memory(monkeypatch, 1)
    found = within_memory(tmp_path / "b", mechanism)
    assert same_weights(halved.weights(), found.weights())
    assert outcome.privacy(halved) == outcome.privacy(found)
    assert [row["physical_batch_size"] for row in outcome.history(found)] == [1, 1, 1]
    assert outcome.costs(found)["physical_batch_size"] == 1
    said = capsys.readouterr().err
    assert "out of memory with 4 images at once (CUDA out of memory. Tried" in said
    assert "out of memory with 2 images at once" in said


def test_memory_that_runs_out_later_costs_the_epochs_since_the_checkpoint(tmp_path, monkeypatch):
    small_memory(monkeypatch, 2, first_step=5)
    found = within_memory(tmp_path / "a", BOOKKEEPING)
    assert [row["physical_batch_size"] for row in found.history] == [4, 2, 2]
    monkeypatch.undo()
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", BOOKKEEPING)
    monkeypatch.undo()
    halved = Cell(settings(BOOKKEEPING), EXECUTION, data(), tmp_path / "b", halvings=1)
    halved.run()
    assert same_weights(halved.weights(), found.weights())


def test_the_halved_batch_is_remembered(tmp_path, monkeypatch):
    small_memory(monkeypatch, 2)
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        within_memory(tmp_path)
    again = trained(tmp_path)
    assert again.physical_batch_size == 2
    assert again.history[-1]["physical_batch_size"] == 2


def test_memory_too_small_for_one_image_is_one_sentence(tmp_path, monkeypatch):
    small_memory(monkeypatch, 0)
    with pytest.raises(UserError, match=r"too little for one image at a time \(CUDA out of mem"):
        within_memory(tmp_path)


def test_any_other_error_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    spoilt(monkeypatch, lambda network: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        within_memory(tmp_path)


def test_a_lack_of_memory_is_known_by_its_errors():
    for allocate in (lambda: torch.empty(10**15), lambda: np.empty(10**16)):
        with pytest.raises((RuntimeError, MemoryError)) as found:
            allocate()
        assert memory.out_of_memory(found.value)
    assert not memory.out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    "text",
    [
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_lack_of_memory_is_known_by_what_cudnn_says(text):
    assert memory.out_of_memory(RuntimeError(text))


def test_images_that_do_not_fit_are_one_sentence(tmp_path, monkeypatch):
    cell = Cell(settings(), EXECUTION, data(), tmp_path)

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "as_tensor", full)
    with pytest.raises(UserError, match="the images do not fit on the device"):
        cell.run()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_the_peak_is_of_training_alone():
    peak = cost.PeakMemory(torch.device("cpu"))
    big = torch.ones(50_000_000)  # 200 MB
    del big
    peak.start()
    before = torch.ones(25_000_000)
    peak.stop()
    found = peak.bytes["peak_host_bytes"]
    del before
    after = torch.ones(50_000_000)
    peak.start()
    peak.stop()
    del after
    assert peak.bytes["peak_gpu_bytes"] is None
    assert peak.bytes["peak_host_bytes"] - found == pytest.approx(100e6, rel=0.2)


def within_memory(folder, mechanism=None, **options):
    wanted = settings(mechanism, **options)
    return memory.run(lambda n: Cell(wanted, EXECUTION, data(), folder, "", n))


def test_sigterm_ends_the_epoch_with_a_checkpoint(tmp_path, monkeypatch):
    """Whatever is between two checkpoints; the run then ends as if undisturbed."""
    straight = trained(tmp_path / "straight", PRIVATE, execution={"checkpoint_every": 5}, epochs=5)
    validate = Cell._validate

    def stopped(cell):
        if len(cell.history) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(cell)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Cell, "_validate", stopped)
    with pytest.raises(interruption.Stopped, match="stopped by SIGTERM after epoch 2"):
        trained(tmp_path / "told", PRIVATE, execution={"checkpoint_every": 5}, epochs=5)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(torch.load(tmp_path / "told" / checkpoint.FILE)["history"]) == 2
    again = trained(tmp_path / "told", PRIVATE, execution={"checkpoint_every": 5}, epochs=5)
    assert same_weights(straight.weights(), again.weights())


def test_a_shuffled_loader_in_the_loop_is_refused(tmp_path, monkeypatch):
    """The mistake of the published code: the accountant is right, the loader is the wrong one."""
    cell = Cell(settings(PRIVATE), EXECUTION, data(), tmp_path)
    cell.sampler = ShuffledSampler(8, 4, Seeded(0))
    with pytest.raises(ContractBroken, match="ShuffledSampler"):
        cell.run()


def test_a_frozen_engine_is_refused(tmp_path):
    """An engine that forgets a tensor: it would train without noise, or not at all."""
    way = PRIVATE | {"engine": "bookkeeping"}
    cell = Cell(settings(way), EXECUTION, data(), tmp_path)
    forgotten = cell.network.last.bias.requires_grad_(False)
    cell.engine.engine = BookKeeper(cell.network)
    forgotten.requires_grad_(True)
    with pytest.raises(ContractBroken, match="1 trainable tensors got no noise"):
        cell.run()


def test_the_seconds_of_an_epoch_are_their_median(tmp_path):
    cell = trained(tmp_path, epochs=2)
    for row, seconds in zip(cell.history, (1.0, 3.0), strict=True):
        row["seconds"] = seconds
    assert outcome.costs(cell)["epoch_seconds_p50"] == 2.0
    assert outcome.privacy(cell)["noise_schedule"] is None


def test_outputs_are_whole_and_readable(tmp_path):
    names = ("model", "history", "privacy", "cost", "manifest")
    paths = SimpleNamespace(**{name: tmp_path / f"{name}.out" for name in names})
    wanted = settings(PRIVATE)
    cell = Cell(wanted, EXECUTION, data(), tmp_path / "state", "digest of the code")
    cell.run()
    outcome.write(cell, paths)
    assert same_weights(load_file(paths.model), cell.weights())
    table = pq.read_table(paths.history)
    assert table.num_rows == 3
    assert table.column_names[:13] == list(wanted["identity"])
    cost = json.loads(paths.cost.read_text())
    assert cost["step_seconds_p10"] <= cost["step_seconds_p50"] <= cost["step_seconds_p90"]
    assert cost["steps_measured"] == 3
    assert cost["peak_host_bytes"] > 50e6
    privacy = json.loads(paths.privacy.read_text())
    assert privacy["epsilon"] == cell.plan.epsilon(6)
    assert privacy["noise_ratio_realised"] == pytest.approx(1.0, rel=0.1)
    manifest = json.loads(paths.manifest.read_text())
    assert manifest["settings"] == wanted
    assert manifest["code"] == "digest of the code"
    assert manifest["versions"]["torch"] == torch.__version__


CHILD = """
import sys
from pathlib import Path
import test_training as here
from dpmedbench import outcome
cell = here.trained(Path(sys.argv[1]), here.PRIVATE, epochs=30)
import torch
torch.save([cell.weights(), outcome.privacy(cell)], sys.argv[2])
"""


def test_sigkill_at_any_moment_ends_in_the_same_weights_and_epsilon(tmp_path):
    """A real process, killed again and again wherever it happens to be."""
    paths = [str(Path(training.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def start(state, out):
        command = [sys.executable, "-c", CHILD, str(state), str(out)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "straight", tmp_path / "straight.pt").wait(120) == 0
    state, out, kills = tmp_path / "killed", tmp_path / "killed.pt", 0
    for wait in (0.0, 0.05, 0.2):
        child = start(state, out)
        before = _epochs(state)
        while child.poll() is None and _epochs(state) == before:
            time.sleep(0.005)
        time.sleep(wait)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += child.wait() == -signal.SIGKILL
    assert kills >= 2
    assert start(state, out).wait(120) == 0
    straight, killed = (torch.load(path) for path in (tmp_path / "straight.pt", out))
    assert same_weights(straight[0], killed[0])
    assert straight[1] == killed[1]


def _epochs(state):
    """What the checkpoint says, by its time of writing."""
    path = state / checkpoint.FILE
    return path.stat().st_mtime_ns if path.exists() else None
