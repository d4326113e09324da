"""Private training of any torch model in two lines, for who knows Opacus.

    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(
        module=model, optimizer=optimizer, criterion=criterion, data_loader=loader,
        noise_multiplier=1.0, max_grad_norm=1.0,
    )

and the training loop stays as it is: `criterion(model(x), y).backward(); optimizer.step();
optimizer.zero_grad()`.
"""

from __future__ import annotations

import copy
import functools
import math
import secrets
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from dpmedbench.bookkeeping.engine import BookKeeper
from dpmedbench.errors import UserError
from dpmedbench.optimization import stream_seed
from dpmedbench.privacy import accounting
from dpmedbench.privacy.plan import thresholds
from dpmedbench.privacy.randomness import Randomness, Secure, Seeded
from dpmedbench.privacy.sampling import PoissonSampler

REDUCTIONS = ("mean", "sum")


class PrivacyEngine:
    """Makes a model, its optimiser, criterion and loader private, and says what it cost.

    One engine serves one training run. Neighbouring data sets differ by one record added or
    removed; batches are Poisson samples.

    Args:
        accountant: "prv", "rdp", "pld" or "gdp" (an approximation).
        secure_rng: draw batches and noise from a cryptographic generator with a key of the
            operating system; see `privacy.randomness.Secure` for what that does not give.
    """

    def __init__(self, *, accountant: str = "prv", secure_rng: bool = False):
        if accountant not in accounting.ACCOUNTANTS:
            raise UserError(
                f"accountant: found {accountant!r}, expected one of "
                f"{', '.join(accounting.ACCOUNTANTS)}"
            )
        self.accountant, self.secure_rng = accountant, secure_rng
        self.noise_multiplier = self.sample_rate = math.nan
        self.steps = 0

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Callable,
        data_loader: DataLoader,
        noise_multiplier: float,
        max_grad_norm: float | Sequence[float],
        clipping: str = "flat",
        clipping_function: str = "abadi",
        loss_reduction: str = "mean",
        grad_sample_mode: str = "mix_opt",
        seed: int | None = None,
    ) -> tuple[nn.Module, torch.optim.Optimizer, PrivateCriterion, DataLoader]:
        """The same module and optimiser, a criterion and a Poisson loader, all of them private.

        Args:
            criterion: a loss of torch with a `reduction`, or any function of (outputs, targets)
                that gives (B,), one loss a sample.
            data_loader: its dataset and batch_size are taken: q = batch_size / len(dataset).
            noise_multiplier: sigma >= 0; 0 is not private, and get_epsilon says so.
            max_grad_norm: R > 0, shared out as R / sqrt(L) among L tensors for per_layer; or a
                list, one for each trainable tensor.
            clipping: "flat" or "per_layer".
            clipping_function: "abadi" or "automatic".
            loss_reduction: "mean" divides updates by the expected batch size, "sum" does not. It
                must be the criterion's.
            grad_sample_mode: one of bookkeeping.MODES.
            seed: of batches and noise, for research; None: from the operating system.

        Raises:
            UserError: for what cannot be made private, naming it.
        """
        if not math.isnan(self.noise_multiplier):
            raise UserError("PrivacyEngine: found one already in use; make one for each run")
        size, records = _sizes(data_loader)
        private_criterion = PrivateCriterion(criterion, loss_reduction)
        book = BookKeeper(
            module,
            grad_sample_mode,
            clipping_function,
            _thresholds(module, max_grad_norm, clipping),
        )
        _check_parameters(module, optimizer)
        private_criterion.book = book
        self.noise_multiplier, self.sample_rate = noise_multiplier, size / records
        seed = secrets.randbits(63) if seed is None else seed

        def source(purpose: str, device: torch.device | str) -> Randomness:
            return Secure() if self.secure_rng else Seeded(stream_seed(seed, purpose), device)

        @functools.cache
        def noise() -> Randomness:  # at the first step: until then the model may move
            return source("noise", book.parameters[0].device)

        divisor = size if loss_reduction == "mean" else 1

        def release(*_) -> None:
            std = noise_multiplier * math.hypot(*book.thresholds)
            for parameter, total in zip(book.parameters, book.sums(), strict=True):
                drawn = noise().normal(total.shape, total.dtype, total.device)
                parameter.grad = total.add_(drawn, alpha=std).div_(divisor)
            self.steps += 1

        optimizer.register_step_pre_hook(release)
        loader = _poisson_loader(data_loader, source("sampling", "cpu"))
        return module, optimizer, private_criterion, loader

    def make_private_with_epsilon(
        self, *, target_epsilon: float, target_delta: float, epochs: int, data_loader, **arguments
    ) -> tuple[nn.Module, torch.optim.Optimizer, PrivateCriterion, DataLoader]:
        """As `make_private`, with the noise that spends `target_epsilon` in `epochs` epochs."""
        size, records = _sizes(data_loader)
        history = ((1.0, epochs * math.ceil(records / size)),)
        try:
            sigma = accounting.calibrate(
                target_epsilon, self.accountant, history, size / records, target_delta
            )
        except ValueError as error:
            raise UserError(f"{error}; raise the target or lower the epochs") from None
        return self.make_private(data_loader=data_loader, noise_multiplier=sigma, **arguments)

    def get_epsilon(self, delta: float) -> float:
        """Epsilon spent so far, at `delta`; inf without noise."""
        if not self.steps:
            return 0.0
        if not self.noise_multiplier > 0:
            return math.inf
        history = ((self.noise_multiplier, self.steps),)
        return accounting.epsilon(self.accountant, history, self.sample_rate, delta)


class PrivateCriterion:
    """A criterion whose `backward` clips the gradient of each sample."""

    def __init__(self, criterion: Callable, loss_reduction: str):
        if loss_reduction not in REDUCTIONS:
            raise UserError(f"loss_reduction: found {loss_reduction!r}, expected mean or sum")
        own = getattr(criterion, "reduction", None)
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
        self._each = criterion
        if own is not None:
            self._each = copy.copy(criterion)
            self._each.reduction = "none"

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> PrivateLoss:
        """The loss of a physical batch; positions of `ignore_index` do not count."""
        losses = self._each(outputs, targets)
        if losses.ndim > 1 and hasattr(self._each, "reduction"):
            counted = torch.ones_like(losses)
            ignored = getattr(self._each, "ignore_index", None)
            if ignored is not None and targets.shape == losses.shape:
                counted = (targets != ignored).to(losses.dtype)
            total = losses.flatten(1).sum(1)
            mean = self.reduction == "mean"
            losses = total / counted.flatten(1).sum(1).clamp(min=1) if mean else total
        return PrivateLoss(self.book, losses, self.reduction)


class PrivateLoss:
    """The losses of a physical batch (B,); `backward` may be called once."""

    def __init__(self, book: BookKeeper, losses: torch.Tensor, reduction: str):
        self.book, self.losses, self.reduction = book, losses, reduction

    def backward(self) -> None:
        """Clip the gradient of each sample and add it to the sums of the next step."""
        self.book.backward(self.losses)

    def detach(self) -> torch.Tensor:
        """The reduced loss, without graph."""
        losses = self.losses.detach()
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def item(self) -> float:
        """The reduced loss as a number."""
        return self.detach().item()


class _PoissonBatches:
    """The batches of an epoch, as a loader takes them; `size` of `records` on average."""

    def __init__(self, records: int, size: int, draws: Randomness):
        self.sampler = PoissonSampler(records, size / records, draws)
        self.steps = math.ceil(records / size)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.sampler.epoch(self.steps))


def _poisson_loader(loader: DataLoader, draws: Randomness) -> DataLoader:
    """`loader` with Poisson batches, empty ones included."""
    from opacus.data_loader import wrap_collate_with_empty

    collate = wrap_collate_with_empty(collate_fn=loader.collate_fn)
    collate([loader.dataset[0]])  # it learns the form of a batch from the first that it sees
    return DataLoader(
        loader.dataset,
        batch_sampler=_PoissonBatches(len(loader.dataset), loader.batch_size, draws),
        collate_fn=collate,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


def _sizes(loader: DataLoader) -> tuple[int, int]:
    """Expected batch size and number of records."""
    size, records = loader.batch_size, len(loader.dataset)
    if size is None or not 1 <= size <= records:
        raise UserError(
            f"data_loader: found batch_size {size} for {records} records, expected 1 to {records}"
        )
    return size, records


def _thresholds(module, max_grad_norm, clipping) -> tuple[float, ...]:
    tensors = sum(p.requires_grad for p in module.parameters())
    if clipping not in ("flat", "per_layer"):
        raise UserError(f"clipping: found {clipping!r}, expected flat or per_layer")
    if isinstance(max_grad_norm, Sequence):
        if clipping == "flat" or len(max_grad_norm) != tensors:
            raise UserError(
                f"max_grad_norm: found {len(max_grad_norm)} values for {clipping} clipping of "
                f"{tensors} trainable tensors, expected one number, or one a tensor for per_layer"
            )
        return tuple(max_grad_norm)
    return thresholds(max_grad_norm, clipping, "scaled", tensors)


def _check_parameters(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Every trainable parameter must be in the optimiser, and nothing else."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    if held != own.keys():
        left = sorted(name for key, name in own.items() if key not in held)
        problem = (
            f"parameter {left[0]} of the module is not in it"
            if left
            else f"{len(held - own.keys())} of its parameters are no trainable ones of the module"
        )
        raise UserError(f"optimizer: {problem}; make it over the module's trainable parameters")
