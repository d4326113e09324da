"""The test set: what a trained model answers, and the scores of it.

One module a task, with

    write(outputs, store, splits, model, history, noisy=None)   write the files that `outputs` names

where `splits` are the records (row numbers of `store`) of "train" and "test", and `history` is the
table of the cell. `noisy` is the perturbed store that the cell was trained on: its test set is
scored too, as predictor "model_on_noisy". A module passes over the test set a batch or an image at
a time, so that memory does not grow with it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError
from dpmedbench.tables import IDENTITY

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

BATCH = 16  # images that are predicted at once


def load(task: str) -> ModuleType:
    """The module of a task: "segmentation" or "classification"."""
    return importlib.import_module(f"{__name__}.{task}")


def identity(history: pa.Table) -> dict[str, object]:
    """The identity of the cell that `history` is of."""
    return history.select(list(IDENTITY)).slice(0, 1).to_pylist()[0]


def load_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Load a safetensors file into `model`; every tensor must be there, in its shape.

    Raises UserError for a file that is missing, damaged or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: found no readable safetensors file ({error}), expected the weights of a "
            "trained model; train the cell again"
        ) from error
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if here != there:
        name = next(n for n in (*here, *there) if here.get(n) != there.get(n))
        raise UserError(
            f"{path}: found {there.get(name, 'nothing')} for {name}, expected "
            f"{here.get(name, 'nothing')} as in the model of the configuration; train the cell "
            "again or give the model the settings it was trained with"
        )
    model.load_state_dict(found)


def batches(number: int) -> list[slice]:
    """Slices of `BATCH` that cover `number` records."""
    return [slice(start, min(start + BATCH, number)) for start in range(0, number, BATCH)]
