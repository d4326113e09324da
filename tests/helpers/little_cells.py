"""Cells on a few small pictures: their settings, cells that ran, and how to disturb one."""

import math
from pathlib import Path

import numpy as np
import torch

from dpmedbench import cells, checkpoint, mechanisms
from dpmedbench.config import Mechanism, Privacy, Training
from dpmedbench.models.unet import UNet
from dpmedbench.training import Trainer
from dpmedbench.training_data import Data

CLASSES = 3
PRIVATE = {"engine": "opacus", "clipping": "abadi", "clipping_style": "flat"}
BOOKKEEPING = {"engine": "bookkeeping", "clipping": "automatic", "clipping_style": "flat"}
SPARSIFIED = BOOKKEEPING | {"sparsification": {"final_rate": 0.9, "refresh": 2}}
EXECUTION = {
    "device": "cpu",
    "checkpoint_seconds": 0,
    "physical_batch_size": 4,
    "cells_per_gpu": 1,
}


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
    cell = Trainer(wanted, way, records or data(), Path(folder))
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


def spoilt(monkeypatch, when):
    """Logits that are no numbers while `when` holds."""
    forward = UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda self, x: forward(self, x) * (math.nan if when(self) else 1)
    )
