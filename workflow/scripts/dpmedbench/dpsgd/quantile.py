"""A clipping threshold that follows a quantile of the gradient norms, privately."""

from __future__ import annotations

import math


class QuantileThreshold:
    """Adaptive clipping (Andrew et al. 2021, arXiv:1905.03871, Alg. 1).

    After each step R <- R exp(-rate (b - target)), where b is the noised share of gradients of
    norm at most R. A gradient counts +1/2 or -1/2, so that one record changes the count by 1/2
    (section 2.2, and Theorem 1 rests on it); the share is of the expected batch size, a public
    number. Opacus counts 0 or 1 and divides by the realised size, which its noise does not cover.

    Args:
        initial: R of the first step.
        target: the share of gradients that should be left unclipped, in (0, 1).
        learning_rate: > 0.
        batch_size: the expected one.
        count_noise: standard deviation of the noise on the count.
    """

    def __init__(
        self,
        initial: float,
        target: float,
        learning_rate: float,
        batch_size: int,
        count_noise: float,
    ):
        self.value = initial
        self.target, self.learning_rate = target, learning_rate
        self.batch_size, self.count_noise = batch_size, count_noise

    def update(self, unclipped: int, records: int, noise: float) -> None:
        """Move the threshold after a step in which `unclipped` of `records` were not clipped.

        `noise` is a standard normal draw.
        """
        count = unclipped - records / 2 + self.count_noise * noise
        share = count / self.batch_size + 0.5
        self.value *= math.exp(-self.learning_rate * (share - self.target))
