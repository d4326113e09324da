"""How batches are drawn: Poisson for private training, shuffled epochs for ordinary training.

Both give index tensors (int64, on the CPU) and carry their own generator, so that drawing is
independent of everything else that is random and resumes from `state()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch


class PoissonSampler:
    """Every record is in a batch with probability `sample_rate`, independently of all else.

    This is the sampling that the accountants assume (Mironov et al. 2019, arXiv:1908.10530,
    section 3.3). Batches vary in size and may be empty.
    """

    def __init__(self, num_records: int, sample_rate: float, seed: int):
        self.num_records = num_records
        self.sample_rate = sample_rate
        self.generator = torch.Generator().manual_seed(seed)

    def epoch(self, steps: int) -> Iterator[torch.Tensor]:
        """Draw `steps` batches."""
        for _ in range(steps):
            # float64: a float32 uniform has 2^-24 steps, too coarse to compare with a rate
            uniform = torch.rand(self.num_records, generator=self.generator, dtype=torch.float64)
            yield (uniform < self.sample_rate).nonzero().flatten()

    def state(self) -> torch.Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Go on from `state`."""
        self.generator.set_state(state)


class ShuffledSampler:
    """Every record once an epoch, in random order, in batches of `batch_size` (the last smaller).

    Not private: no accountant covers it as it is used here.
    """

    def __init__(self, num_records: int, batch_size: int, seed: int):
        self.num_records = num_records
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def epoch(self, steps: int) -> Iterator[torch.Tensor]:
        """Draw one epoch; `steps` must be ceil(num_records / batch_size)."""
        if steps != math.ceil(self.num_records / self.batch_size):
            raise ValueError(
                f"{steps} steps are not one epoch of {self.num_records} records in batches of "
                f"{self.batch_size}"
            )
        yield from torch.randperm(self.num_records, generator=self.generator).split(self.batch_size)

    def state(self) -> torch.Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Go on from `state`."""
        self.generator.set_state(state)
