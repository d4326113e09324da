"""A criterion and its loss as a training loop calls them, whose backward pass clips."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NoReturn

import torch

from dpmedbench.bookkeeping.engine import BookKeeper
from dpmedbench.bookkeeping.poisson_loader import Ledger
from dpmedbench.errors import UserError

REDUCTIONS = ("mean", "sum")


class PrivateCriterion:
    """A criterion whose `backward` clips the gradient of each sample."""

    def __init__(self, criterion: Callable, loss_reduction: str):
        if loss_reduction not in REDUCTIONS:
            raise UserError(f"loss_reduction: found {loss_reduction!r}, expected mean or sum")
        if isinstance(criterion, PrivateCriterion):
            raise UserError(
                "criterion: found one that make_private gave before, expected the one it was made "
                "of"
            )
        own = getattr(criterion, "reduction", None)
        if own not in (None, "none", *REDUCTIONS):
            raise UserError(
                f"criterion: found reduction {own!r}, expected mean, sum or none; give one of "
                "these, or a function of (outputs, targets) with one loss a sample"
            )
        if own in REDUCTIONS and own != loss_reduction:
            raise UserError(
                f"criterion: found reduction {own!r}, but loss_reduction is {loss_reduction!r}; "
                "they must agree"
            )
        if loss_reduction == "mean" and getattr(criterion, "weight", None) is not None:
            raise UserError(
                "criterion: found class weights with reduction 'mean', which divides by the "
                "weights of the whole batch; use reduction 'sum' or give one loss a sample"
            )
        self.reduction = loss_reduction
        self.book: BookKeeper | None = None
        self.ledger: Ledger | None = None
        self._each = criterion
        if own is not None:
            self._each = copy.copy(criterion)
            self._each.reduction = "none"

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> PrivateLoss:
        """The loss of a physical batch; positions of `ignore_index` do not count.

        UserError where the criterion broadcasts one sample's outputs over the targets of others.
        """
        losses = self._each(outputs, targets)
        if losses.ndim > 1 and hasattr(self._each, "reduction"):
            if outputs.ndim != targets.ndim and losses.ndim == max(outputs.ndim, targets.ndim):
                raise UserError(
                    f"criterion: found outputs of shape {tuple(outputs.shape)} and targets of "
                    f"shape {tuple(targets.shape)} broadcast to losses of shape "
                    f"{tuple(losses.shape)}, which mixes samples; give both the same dimensions"
                )
            counted = torch.ones_like(losses)
            ignored = getattr(self._each, "ignore_index", None)
            if ignored is not None and targets.shape == losses.shape:
                counted = (targets != ignored).to(losses.dtype)
            total = losses.flatten(1).sum(1)
            mean = self.reduction == "mean"
            losses = total / counted.flatten(1).sum(1).clamp(min=1) if mean else total
        return PrivateLoss(self.book, self.ledger, losses, self.reduction)


class PrivateLoss:
    """The losses of a physical batch (B,); `backward` may be called once."""

    def __init__(self, book: BookKeeper, ledger: Ledger, losses: torch.Tensor, reduction: str):
        self.book, self.ledger, self.losses, self.reduction = book, ledger, losses, reduction

    def backward(self) -> None:
        """Clip the gradient of each sample and add it to the sums of the next step."""
        self.ledger.used(len(self.losses) if self.losses.ndim else 1)
        try:
            self.book.backward(self.losses)
        except BaseException:  # what came before of the batch is of no use without the rest
            self.book.sums(), self.book.norms()
            self.ledger.forgotten()
            raise

    def __add__(self, other) -> NoReturn:
        raise UserError(
            "loss: found arithmetic with the loss of a private criterion, which is one a sample; "
            "write sums and weights into the criterion, a function of (outputs, targets), and call "
            "backward for parts of a batch as they are"
        )

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __add__

    def detach(self) -> torch.Tensor:
        """The reduced loss, without graph."""
        losses = self.losses.detach()
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def item(self) -> float:
        """The reduced loss as a number."""
        return self.detach().item()
