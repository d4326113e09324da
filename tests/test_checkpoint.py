"""Checkpoints: a cell that was stopped, killed or disturbed ends as if it had not been."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import little_cells
import numpy as np
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
    stop_after,
    trained,
)
from torch.nn import functional

from dpmedbench import checkpoint, cost, interruption, outcome, pretrained, training
from dpmedbench.errors import UserError
from dpmedbench.models.unet import UNet
from dpmedbench.training import Trainer


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


def test_a_network_that_draws_goes_on_with_its_draws(tmp_path, monkeypatch):
    forward = UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda self, x: functional.dropout(forward(self, x), 0.5, self.training)
    )
    straight = trained(tmp_path / "straight")
    with monkeypatch.context() as dying:
        stop_after(dying, 2)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed")
    assert same_weights(straight.weights(), trained(tmp_path / "killed").weights())


def test_another_way_of_execution_goes_on_from_the_checkpoint(tmp_path, monkeypatch, capsys):
    """Checkpoints further apart, smaller physical batches."""
    straight = trained(tmp_path / "straight", PRIVATE, epochs=4)
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", PRIVATE, epochs=4)
    monkeypatch.undo()
    other = {"checkpoint_seconds": 30, "physical_batch_size": 2}
    again = trained(tmp_path / "killed", PRIVATE, execution=other, epochs=4)
    said = capsys.readouterr().err
    assert "going on after epoch 2 from" in said
    assert "nothing left to train" not in said
    assert [row["physical_batch_size"] for row in again.history] == [4, 4, 2, 2]
    for name, value in straight.weights().items():
        torch.testing.assert_close(value, again.weights()[name], rtol=1e-3, atol=1e-4)


def test_a_cell_that_went_on_elsewhere_names_both_devices(tmp_path, monkeypatch):
    """Its times are compared with those of no other."""
    for stop, name in enumerate(["one", "other", "other", "one", "one"], start=1):
        with monkeypatch.context() as here:
            here.setattr(cost, "device_name", lambda *_, name=name: name)
            stop_after(here, stop)
            with pytest.raises(KeyboardInterrupt):
                trained(tmp_path, epochs=5)
    cell = trained(tmp_path, epochs=5)
    assert outcome.costs(cell)["device"] == "one; from epoch 2: other; from epoch 4: one"


def test_the_first_step_of_a_cell_that_goes_on_is_not_timed(tmp_path, monkeypatch):
    """It takes up kernels and proofs anew, and warm-up was counted off before."""
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, PRIVATE)
    monkeypatch.undo()
    assert len(trained(tmp_path, PRIVATE).timer.seconds) == 3 * 2 - 1


def test_another_delta_or_accountant_trains_nothing_again(tmp_path, capsys, monkeypatch):
    """What was measured is of where and how the cell was trained."""
    cell = trained(tmp_path, BOOKKEEPING)
    monkeypatch.setattr(cost, "device_name", lambda device, cells: "another device")
    other = settings(BOOKKEEPING, {"delta": 1e-4, "accountant": "prv"})
    again = Trainer(other, EXECUTION | {"physical_batch_size": 1}, data(), tmp_path)
    again.run()
    assert outcome.costs(again) == outcome.costs(cell)
    assert again.engine.record() == cell.engine.record()
    assert outcome.history(again)[-1]["device"] != "another device"
    assert "nothing left to train" in capsys.readouterr().err
    found = outcome.privacy(again)
    assert (found["delta"], found["accountant"]) == (1e-4, "prv")
    assert found["epsilon"] == found["epsilon_prv"] == again.plan.epsilon(6, "prv")


def test_where_the_noise_follows_from_delta_another_one_starts_anew():
    def fingerprint(delta):
        wanted = settings(PRIVATE, {"delta": delta})
        wanted["identity"] |= {"noise_multiplier": None, "target_epsilon": 8.0}
        return Trainer(wanted, EXECUTION, data(), Path()).fingerprint

    assert fingerprint(1e-3) == fingerprint(1e-3) != fingerprint(1e-4)


def test_a_cell_that_is_at_its_end_says_how_to_train_anew(tmp_path, capsys):
    trained(tmp_path)
    assert "nothing left to train" not in capsys.readouterr().err
    trained(tmp_path)
    assert f"nothing left to train; delete {tmp_path} to train anew" in capsys.readouterr().err


def test_another_fingerprint_starts_anew(tmp_path):
    trained(tmp_path, epochs=2)
    assert checkpoint.load(tmp_path, "another") is None
    fresh = Trainer(settings(epochs=2, learning_rate=1e-3), EXECUTION, data(), tmp_path)
    fresh._resume()
    assert fresh.history == []


def test_other_weights_to_begin_with_start_anew(monkeypatch):
    def fingerprint(digest):
        monkeypatch.setattr(pretrained, "digest", lambda _: digest)
        return Trainer(settings(), EXECUTION, data(), Path()).fingerprint

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


@pytest.mark.parametrize(("seconds", "epochs"), [(0, [1, 2, 3, 4, 5]), (1000, [5])])
def test_checkpoints_are_so_far_apart(tmp_path, seconds, epochs, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *given: saved.append(len(given[2]["history"])))
    trained(tmp_path, execution={"checkpoint_seconds": seconds}, epochs=5)
    assert saved == epochs


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_next_epoch(tmp_path, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    cell = Trainer(settings(epochs=9), EXECUTION, data(), tmp_path)
    epoch = cell._epoch

    def slowly(number):
        time.sleep(0.2 * (number == 2))
        return epoch(number)

    cell._epoch = slowly
    with pytest.raises(UserError, match="the disk is full"):
        cell.run()
    assert len(cell.history) == 2


def test_what_a_killed_job_left_half_written_goes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".{checkpoint.FILE}.{os.uname().nodename}.{dead.pid}.tmp"
    left.write_bytes(b"half")
    trained(tmp_path)
    assert not left.exists()


def test_sigterm_ends_the_epoch_with_a_checkpoint(tmp_path, monkeypatch):
    """Whatever is between two checkpoints; the run then ends as if undisturbed."""
    straight = trained(
        tmp_path / "straight", PRIVATE, execution={"checkpoint_seconds": 1000}, epochs=5
    )
    validate = Trainer._validate

    def stopped(cell):
        if len(cell.history) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(cell)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Trainer, "_validate", stopped)
    with pytest.raises(interruption.Stopped, match="stopped by SIGTERM after epoch 2"):
        trained(tmp_path / "told", PRIVATE, execution={"checkpoint_seconds": 1000}, epochs=5)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(torch.load(tmp_path / "told" / checkpoint.FILE)["history"]) == 2
    again = trained(tmp_path / "told", PRIVATE, execution={"checkpoint_seconds": 1000}, epochs=5)
    assert same_weights(straight.weights(), again.weights())


CHILD = """
import sys
from pathlib import Path
import little_cells as here
from dpmedbench import outcome
cell = here.trained(Path(sys.argv[1]), here.PRIVATE, epochs=30)
import torch
torch.save([cell.weights(), outcome.privacy(cell)], sys.argv[2])
"""


def test_sigkill_at_any_moment_ends_in_the_same_weights_and_epsilon(tmp_path):
    """A real process, killed again and again wherever it happens to be."""
    paths = [str(Path(training.__file__).parents[1]), str(Path(little_cells.__file__).parent)]
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
