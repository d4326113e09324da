"""Training in the memory that there is: where it is not enough, with smaller physical batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from dpmedbench import collector
from dpmedbench.console import say
from dpmedbench.errors import UserError, first_line

if TYPE_CHECKING:
    from dpmedbench.training import Trainer

# RuntimeErrors of torch's allocator on the CPU (Linux, Windows) and of CUDA's libraries
_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "unable to find an engine",  # cuDNN, where no engine got its workspace
    "could not create a primitive",  # all that oneDNN says of it
)
_CONTEXT = 600_000_000  # bytes of a GPU that a process takes before its first tensor, about


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had, on the host or on the GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
    )


def run(make: Callable[[int], Trainer]) -> Trainer:
    """Train the cell that `make` makes for a number of halvings, to its end.

    Where memory runs out, whatever the engine left half done is thrown away with the cell, and a
    new one goes on from the last checkpoint with physical batches of half the size. Logical
    batches, noise and epsilon stay what they were.

    Raises:
        UserError: where one image at a time is too much.
    """
    halvings = 0
    while True:
        trainer = _made(make, halvings)
        try:
            trainer.run()
            _say_room(trainer)
            return trainer
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = first_line(error)
        size, halvings = trainer.physical_batch_size, trainer.halvings + 1
        if not trainer.can_halve:
            raise UserError(
                f"memory: found too little for one image at a time ({reason}), expected room for "
                "it; use a smaller image_size or network, or a device with more memory"
            )
        del trainer
        collector.collect()  # hooks tie models into cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(f"out of memory with {size} images at once ({reason}); going on with fewer")


def _say_room(trainer: Trainer) -> None:
    """Say how many such cells the GPU has room for, where that is more than may share it.

    Not where no step took memory.
    """
    if trainer.device.type != "cuda" or not trainer.stepped:
        return
    taken = torch.cuda.max_memory_reserved(trainer.device) + _CONTEXT
    cells = torch.cuda.mem_get_info(trainer.device)[1] // taken
    if cells > trainer.execution["cells_per_gpu"]:
        say(f"the GPU has room for {cells} cells like this one (training.cells_per_gpu)")


def _made(make: Callable[[int], Trainer], halvings: int) -> Trainer:
    try:
        with collector.paused():
            return make(halvings)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"memory: the network does not fit on the device ({first_line(error)}); free the "
            "device of other processes, use a smaller training.cells_per_gpu or network, or a "
            "device with more memory"
        ) from error
