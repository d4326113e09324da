"""Poisson batches as a DataLoader gives them, and the account of which were used."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from dpmedbench.errors import UserError, one_line
from dpmedbench.privacy.randomness import Randomness
from dpmedbench.privacy.sampling import PoissonSampler


class Ledger:
    """Sees to it that each step releases one batch of the private loader, each record once.

    Epsilon is of one batch a step: two in one step, one in two, or a record twice, would tell more.
    """

    def __init__(self):
        self._size: int | None = None  # of the last batch; None before the first
        self._records = 0  # how many gradients of it came in
        self._open = False  # no step has followed it
        self._left = False  # nor one before it in this epoch
        self._stale = False  # gradients of an earlier one wait for a step

    def drew(self, size: int, first: bool = True) -> None:
        """The loader has given a batch of `size` records, the `first` of an epoch or another."""
        self._stale |= self._open and self._records > 0
        self._left = not first and (self._open or self._left)
        self._size, self._records, self._open = size, 0, True

    def used(self, records: int) -> None:
        """Gradients of `records` records come in. UserError where a step may not release them."""
        if self._size is None:
            raise UserError(
                "loss.backward(): found no batch of the private loader, expected its batches; "
                "train on the loader that make_private gave"
            )
        if self._left or self._stale:
            raise UserError(
                "loss.backward(): found a batch before this one that no step has followed, "
                "expected optimizer.step() after every batch, also an empty one; for more records "
                "in a step raise batch_size, and call backward for parts of the batch"
            )
        if not self._open:
            raise UserError(
                "loss.backward(): found a batch that a step has released already, expected the "
                "next one; train on a batch before the next is drawn, and step once for all of it"
            )
        self._records += records
        if self._records > self._size:
            raise UserError(
                f"loss.backward(): found gradients of {self._records} records for a batch of "
                f"{self._size}, expected each record once; call backward once for each part of a "
                "batch of the private loader, before the next is drawn"
            )

    def forgotten(self) -> None:
        """The gradients that came in were thrown away: the batch may be used from its start."""
        self._records, self._stale = 0, False

    def released(self) -> None:
        """A step releases what came in. UserError where no batch was drawn for it."""
        if not self._open:
            raise UserError(
                "optimizer.step(): found no batch since the step before, expected one step for "
                "each batch of the private loader; this one would be noise alone (also where the "
                "optimiser's own step calls that of its base class, which counts as another)"
            )
        self._open = self._left = self._stale = False


class PoissonLoader(DataLoader):
    """The dataset of `loader` in Poisson batches, empty ones included.

    On average they are of the loader's batch_size. `ledger` hears of each batch that is given.
    """

    def __init__(self, loader: DataLoader, draws: Randomness, ledger: Ledger):
        from opacus.data_loader import wrap_collate_with_empty

        collate = wrap_collate_with_empty(collate_fn=loader.collate_fn)
        collate([loader.dataset[0]])  # it learns the form of a batch from the first that it sees
        try:
            collate([])
        except (TypeError, IndexError) as error:
            raise UserError(
                f"data_loader: found batches of which none can be empty ({one_line(error)}), as "
                "some of the private loader are; expected tensors, or lists or dicts of them: "
                "leave names and the like out"
            ) from None
        super().__init__(
            loader.dataset,
            batch_sampler=_Batches(*sizes(loader), draws),
            collate_fn=collate,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        self.ledger = ledger

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        found = self.batch_sampler.sizes
        for number, batch in enumerate(batches):
            self.ledger.drew(found.popleft(), first=number == 0)
            yield batch


class _Batches:
    """The indices of an epoch; `sizes` of those that were drawn and not yet given."""

    def __init__(self, size: int, records: int, draws: Randomness):
        self.sampler = PoissonSampler(records, size / records, draws)
        self.steps = math.ceil(records / size)
        self.sizes: deque[int] = deque()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        self.sizes = deque()  # of each epoch its own: a loader draws ahead
        return self._epoch(self.sizes)

    def _epoch(self, drawn: deque[int]) -> Iterator[list[int]]:
        for batch in self.sampler.epoch(self.steps):
            drawn.append(len(batch))
            yield batch.tolist()


def sizes(loader: DataLoader) -> tuple[int, int]:
    """Expected batch size and number of records of a loader.

    UserError where it is not one that draws from the whole of a dataset of known length.
    """
    if isinstance(loader.dataset, IterableDataset):
        raise UserError(
            "data_loader: found an IterableDataset, expected one with a length, of which any "
            "record may be drawn"
        )
    sampler, size, records = loader.sampler, loader.batch_size, len(loader.dataset)
    if size is None:
        raise UserError(
            "data_loader: found none with a batch_size (it has a batch_sampler, or make_private "
            "gave it before), expected DataLoader(dataset, batch_size=...)"
        )
    if not 1 <= size <= records:
        raise UserError(
            f"data_loader: found batch_size {size} for {records} records, expected 1 to {records}"
        )
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == records
    )
    if not whole:
        raise UserError(
            f"data_loader: found {type(sampler).__name__}, which does not give each record once; "
            "batches are drawn anew from the whole dataset: make it a torch.utils.data.Subset of "
            "what is to be trained on, and leave the sampler out"
        )
    if isinstance(loader.dataset, Subset):
        rows = [int(row) for row in loader.dataset.indices]
        if twice := len(rows) - len(set(rows)):
            raise UserError(
                f"data_loader: found a Subset that repeats {twice} of its {records} indices, of "
                "whose records epsilon would be too small; name each once"
            )
    return size, records
