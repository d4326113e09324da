"""A step waits for the GPU where that is promised alone, and mixes nothing of it and the host."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from little_cells import BOOKKEEPING, EXECUTION, PRIVATE, SPARSIFIED, data, settings
from pretend_gpu import PretendGPU

from dpmedbench import devices
from dpmedbench.training import Trainer

ADAPTIVE = BOOKKEEPING | {"clipping": "adaptive"}
NETWORKS = {
    "unet": {"network": "unet", "features": [4, 8], "num_groups": 2},
    "resnet18": {"network": "resnet18", "features": [4, 8], "num_groups": 2},
}


def waits_of_steps(folder, monkeypatch, mechanism, network="unet", **options):
    """The operations that waited for the GPU in each step of two epochs of two steps."""
    gpu, found = PretendGPU(monkeypatch), []
    monkeypatch.setattr(devices, "choose", lambda _: gpu.device)
    honest = Trainer._step

    def step(self, *arguments):
        gpu.waits.clear()
        honest(self, *arguments)
        found.append(list(gpu.waits))

    monkeypatch.setattr(Trainer, "_step", step)
    records = data()
    if network == "resnet18":
        labels = (np.arange(12) % 3).astype(np.uint8)
        train, val = (records.train[0], labels[:8]), (records.val[0], labels[8:])
        records = replace(records, train=train, val=val, test=val, task="classification")
    wanted = settings(mechanism, epochs=2, **options) | {"model": NETWORKS[network]}
    with gpu:
        cell = Trainer(wanted, EXECUTION | {"physical_batch_size": 2}, records, folder)
        cell.run()
    assert next(cell.network.parameters()).device == gpu.device
    return found


@pytest.mark.parametrize(
    ("network", "options"),
    [("resnet18", {}), ("unet", {"optimizer": "sgd", "momentum": 0.9, "ema_decay": 0.9})],
)
def test_a_step_of_ordinary_training_waits_for_nothing(network, options, tmp_path, monkeypatch):
    assert waits_of_steps(tmp_path, monkeypatch, None, network, **options) == [[], [], [], []]


@pytest.mark.parametrize(
    ("network", "mechanism"),
    [
        ("unet", PRIVATE),
        ("resnet18", BOOKKEEPING),
        ("unet", BOOKKEEPING | {"clipping_style": "per_layer"}),
        ("unet", SPARSIFIED),
    ],
)
def test_a_private_step_waits_where_the_contract_is_measured(
    network, mechanism, tmp_path, monkeypatch
):
    """That is once an epoch; the first step looks into the network as well."""
    _, *others = waits_of_steps(tmp_path, monkeypatch, mechanism, network)
    assert others == [[], ["copy down"], []]


def test_an_adaptive_threshold_is_read_in_each_step(tmp_path, monkeypatch):
    _, second, *_ = waits_of_steps(tmp_path, monkeypatch, ADAPTIVE)
    assert set(second) == {"_local_scalar_dense"}


def test_what_waits_for_a_gpu_is_seen(monkeypatch):
    gpu = PretendGPU(monkeypatch)
    with gpu:
        there = torch.arange(3, device=gpu.device) * torch.tensor(2)
        torch.ones(3).to(gpu.device, non_blocking=True).mul_(there).sum()
        assert gpu.waits == []
        assert there[there > 1].tolist() == [2, 4]
        assert torch.ones(3).to(gpu.device).max().item() == 1
        assert there[torch.tensor([0])].add_(1).sum().item() == 1
        with pytest.raises(RuntimeError, match="found tensors on both devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="found tensors on both devices"):
            torch.ones(3)[there > 1]
    waits = ["index", "copy down", "copy up", "_local_scalar_dense", "index", "_local_scalar_dense"]
    assert gpu.waits == waits
