"""How batches are drawn: independently (Poisson), by a fixed number, or by shuffling.

Each sampler gives index tensors (int64, on the CPU), drawn from the Randomness it is given, whose
state is all the state there is. Which accounting holds for which stands in `plan.validity`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from dpmedbench.privacy.randomness import Randomness


class PoissonSampler:
    """Every record is in a batch with probability `sample_rate`, independently of all else.

    Mironov et al. 2019, arXiv:1908.10530, section 3.3. Batches vary in size and may be empty.
    """

    def __init__(self, num_records: int, sample_rate: float, randomness: Randomness):
        self.num_records = num_records
        self.sample_rate = sample_rate
        self.randomness = randomness

    def epoch(self, steps: int) -> Iterator[torch.Tensor]:
        """Draw `steps` batches."""
        for _ in range(steps):
            # float64: a float32 uniform has 2^-24 steps, too coarse to compare with a rate
            uniform = self.randomness.uniform(self.num_records)
            yield (uniform < self.sample_rate).nonzero().flatten()


class FixedSizeSampler:
    """Every batch is `batch_size` distinct records, each such set as likely, whatever came before.

    The "subsample" of Wang, Balle & Kasiviswanathan 2019, arXiv:1808.00087.
    """

    def __init__(self, num_records: int, batch_size: int, randomness: Randomness):
        self.num_records = num_records
        self.batch_size = batch_size
        self.randomness = randomness

    def epoch(self, steps: int) -> Iterator[torch.Tensor]:
        """Draw `steps` batches."""
        for _ in range(steps):
            yield self.randomness.choice(self.num_records, self.batch_size)


class ShuffledSampler:
    """Every record once an epoch, in random order, in batches of `batch_size` (the last smaller).

    Ordinary training draws by it too.
    """

    def __init__(self, num_records: int, batch_size: int, randomness: Randomness):
        self.num_records = num_records
        self.batch_size = batch_size
        self.randomness = randomness

    def epoch(self, steps: int) -> Iterator[torch.Tensor]:
        """Draw one epoch; `steps` must be ceil(num_records / batch_size)."""
        if steps != math.ceil(self.num_records / self.batch_size):
            raise ValueError(
                f"{steps} steps are not one epoch of {self.num_records} records in batches of "
                f"{self.batch_size}"
            )
        yield from self.randomness.permutation(self.num_records).split(self.batch_size)


SAMPLERS = {
    "poisson": PoissonSampler,
    "fixed_size": FixedSizeSampler,
    "shuffled": ShuffledSampler,
}
