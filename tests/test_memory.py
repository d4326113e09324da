"""Too little memory: smaller physical batches, with the same result, or one sentence."""

from types import SimpleNamespace

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
    spoilt,
    stop_after,
    trained,
)

from dpmedbench import memory, outcome, training
from dpmedbench.errors import UserError
from dpmedbench.models.unet import UNet
from dpmedbench.training import Trainer

GHOST = PRIVATE | {"mode": "ghost"}


def small_memory(monkeypatch, images, first_step=1):
    """No room for the backward pass of more than so many images, from a step of the job on."""
    build, steps = training.Trainer._engine, []

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

    monkeypatch.setattr(training.Trainer, "_engine", engine)


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
    small_memory(monkeypatch, 2, first_step=4)
    found = within_memory(tmp_path / "a", BOOKKEEPING)
    assert [row["physical_batch_size"] for row in found.history] == [4, 2, 2]
    monkeypatch.undo()
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", BOOKKEEPING)
    monkeypatch.undo()
    halved = Trainer(settings(BOOKKEEPING), EXECUTION, data(), tmp_path / "b", halvings=1)
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


@pytest.mark.parametrize(("most", "at_once"), [(4, 9), (2, 8), (1, 4)])
def test_validation_keeps_to_small_batches_too(tmp_path, monkeypatch, most, at_once):
    """It takes far less memory an image than training."""
    forward, sizes = UNet.forward, []

    def counted(network, images):
        sizes.append((network.training, len(images)))
        return forward(network, images)

    monkeypatch.setattr(UNet, "forward", counted)
    trained(tmp_path, records=data(27), execution={"physical_batch_size": most}, epochs=1)
    assert max(size for training, size in sizes if training) == most
    assert max(size for training, size in sizes if not training) == at_once


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
    cell = Trainer(settings(), EXECUTION, data(), tmp_path)

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "as_tensor", full)
    with pytest.raises(UserError, match="the images do not fit on the device"):
        cell.run()


def within_memory(folder, mechanism=None, **options):
    wanted = settings(mechanism, **options)
    return memory.run(lambda n: Trainer(wanted, EXECUTION, data(), folder, "", n))


def test_a_network_that_does_not_fit_is_one_sentence():
    """Another process fills the device."""

    def make(halvings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    with pytest.raises(UserError, match=r"the network does not fit on the device \(CUDA out of"):
        memory.run(make)


@pytest.mark.parametrize(("total", "shared", "said"), [(8e9, 1, "3"), (8e9, 3, ""), (2e9, 1, "")])
def test_a_cell_says_how_many_like_it_a_gpu_has_room_for(monkeypatch, capsys, total, shared, said):
    """Each takes 2 GB, and what CUDA takes of a GPU for a process."""
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2_000_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, int(total)))
    cell = SimpleNamespace(
        device=torch.device("cuda"),
        run=lambda: None,
        stepped=True,
        execution={"cells_per_gpu": shared},
    )
    memory.run(lambda halvings: cell)
    printed = capsys.readouterr().err
    assert (f"room for {said} cells like this one" in printed) if said else printed == ""
    cell.stepped = False  # it had been trained to its end before
    memory.run(lambda halvings: cell)
    assert capsys.readouterr().err == ""
