"""The records of one fold, decoded, for training."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dpmedbench import memory, splits, store, tasks
from dpmedbench.errors import UserError, first_line
from dpmedbench.files import sha256


@dataclass(frozen=True)
class Data:
    """Decoded records of one fold: uint8 (images, targets) and what they are.

    `digest` identifies the records, in their order, `splits` (SHA-256) the file that names them.
    `test` is None where the task does not score it in training. Where there is a `perturbation`,
    the images of `train`, `val` and `test_noisy` are int16 and have its noise; those of `test`
    have none.
    """

    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]
    task: str
    channels: int
    num_classes: int
    digest: str
    test: tuple[np.ndarray, np.ndarray] | None = None
    test_noisy: tuple[np.ndarray, np.ndarray] | None = None
    perturbation: dict | None = None
    splits: str | None = None

    @property
    def scored(self) -> tuple[str, ...]:
        """The parts that are scored each epoch."""
        parts = ("val", "test", "test_noisy")
        return tuple(part for part in parts if getattr(self, part) is not None)

    def on(self, device: torch.device) -> dict[str, list[torch.Tensor]]:
        """[images, targets] of "train" and of each part that is scored, on `device`.

        Raises:
            UserError: where they do not fit.
        """
        try:
            return {
                part: [torch.as_tensor(array).to(device) for array in getattr(self, part)]
                for part in ("train", *self.scored)
            }
        except Exception as error:
            if not memory.out_of_memory(error):
                raise
            raise UserError(
                f"memory: the images do not fit on the device ({first_line(error)}); use a smaller "
                "image_size, a smaller training.cells_per_gpu, or a device with more memory"
            ) from error


def load(
    data: str | Path, split_file: str | Path, fold: int, perturbed: str | Path | None = None
) -> Data:
    """Training records of `fold` and those scored in training, in the order of the store.

    `perturbed` is a store with noise (`perturbation`) to train and validate on instead.

    Raises:
        UserError: where a store or the split file is not what it should be.
    """
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(store.open_store(data))
        noisy = stack.enter_context(store.open_store(perturbed)) if perturbed else None
        perturbation = noisy and noisy.provenance["perturbation"]
        if noisy and perturbation["of"] != records.digest:
            raise UserError(
                f"{perturbed}: found the noisy images of other data, expected those of {data}; "
                "make them again"
            )
        frame = splits.read(split_file, records)
        parts = {
            part: splits.indices(frame, fold, part)
            for part in ("train", *tasks.load(records.task).EVALUATED)
        }
        digest = hashlib.sha256((noisy or records).digest.encode())
        for part in parts.values():
            digest.update(part.astype("int64").tobytes() + b"/")
        found = {
            part: (records if part == "test" else noisy or records).read(indices)
            for part, indices in parts.items()
        }
        if noisy and "test" in parts:
            found["test_noisy"] = noisy.read(parts["test"])
        return Data(
            **found,
            task=records.task,
            channels=records.channels,
            num_classes=len(records.classes),
            digest=digest.hexdigest(),
            perturbation=perturbation,
            splits=sha256(split_file),
        )
