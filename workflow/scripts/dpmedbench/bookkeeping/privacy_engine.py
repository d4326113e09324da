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

import math
import secrets
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from dpmedbench.bookkeeping.criterion import PrivateCriterion
from dpmedbench.bookkeeping.engine import BookKeeper
from dpmedbench.bookkeeping.poisson_loader import Ledger, PoissonLoader, sizes
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import PER_LAYER
from dpmedbench.privacy import accounting
from dpmedbench.privacy.plan import clipping_norm, thresholds
from dpmedbench.privacy.randomness import Randomness, stream

CLIPPING_FUNCTIONS = tuple(function for function, _ in PER_LAYER)  # nothing here adapts


class PrivacyEngine:
    """Makes a model, its optimiser, criterion and loader private, and says what it cost.

    One engine serves one training run, which a new one continues from `state_dict`. Neighbouring
    data sets differ by one record added or removed; batches are Poisson samples, and a step
    releases one of them.

    Args:
        accountant: "prv", "rdp", "pld" or "gdp" (an approximation, which may be too small).
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
        self._normals: Randomness | None = None

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
            data_loader: its dataset and batch_size are taken: q = batch_size / len(dataset). It
                must draw from the whole dataset.
            noise_multiplier: sigma >= 0; 0 is not private, and get_epsilon says so.
            max_grad_norm: R > 0, shared out as R / sqrt(L) among L tensors for per_layer; or a
                list, one for each trainable tensor.
            clipping: "flat" or "per_layer".
            clipping_function: "abadi" or "automatic".
            loss_reduction: "mean" divides updates by the expected batch size, "sum" does not. It
                must be the criterion's.
            grad_sample_mode: one of bookkeeping.MODES.
            seed: of batches and noise, for research; None: from the operating system, of which
                torch's generator on the CPU takes 32 bits. `secure_rng` is for release.

        Raises:
            UserError: for what cannot be made private, naming it.
        """
        if not math.isnan(self.noise_multiplier):
            raise UserError("PrivacyEngine: found one already in use; make one for each run")
        if clipping_function not in CLIPPING_FUNCTIONS:
            raise UserError(
                f"clipping_function: found {clipping_function!r}, expected one of "
                f"{', '.join(CLIPPING_FUNCTIONS)}"
            )
        if not 0 <= noise_multiplier < math.inf:
            raise UserError(
                f"noise_multiplier: found {noise_multiplier}, expected a number of at least 0"
            )
        size, records = sizes(data_loader)
        private_criterion = PrivateCriterion(criterion, loss_reduction)
        book = BookKeeper(
            module,
            grad_sample_mode,
            clipping_function,
            _thresholds(module, max_grad_norm, clipping),
        )
        _check_parameters(module, optimizer, book)
        ledger = Ledger()
        private_criterion.book, private_criterion.ledger = book, ledger
        self.noise_multiplier, self.sample_rate = noise_multiplier, size / records
        self._book = book
        self._repeats = seed is not None
        self._seed = secrets.randbits(63) if seed is None else seed
        self._draws = self._randomness("sampling", "cpu")
        divisor = size if loss_reduction == "mean" else 1

        def release(_, arguments, keywords) -> None:
            _check_closure((*arguments[1:], *keywords.values()))
            _check_parameters(module, optimizer, book)
            sums = book.sums()
            _check_norms(book.norms())
            ledger.released()
            std = noise_multiplier * clipping_norm(book.thresholds)
            for parameter, total in zip(book.parameters, sums, strict=True):
                drawn = self._noise().normal(total.shape, total.dtype, total.device)
                parameter.grad = total.add_(drawn, alpha=std).div_(divisor)
            self.steps += 1

        optimizer.register_step_pre_hook(release)
        return module, optimizer, private_criterion, PoissonLoader(data_loader, self._draws, ledger)

    def make_private_with_epsilon(
        self, *, target_epsilon: float, target_delta: float, epochs: int, data_loader, **arguments
    ) -> tuple[nn.Module, torch.optim.Optimizer, PrivateCriterion, DataLoader]:
        """As `make_private`, with the noise that spends `target_epsilon` in `epochs` epochs.

        UserError also with accountant gdp, which gives no bound to calibrate to.
        """
        _check_delta("target_delta", target_delta)
        if not 0 < target_epsilon < math.inf:
            raise UserError(f"target_epsilon: found {target_epsilon}, expected a number above 0")
        if epochs < 1 or epochs % 1:
            raise UserError(f"epochs: found {epochs}, expected a whole number above 0")
        if accounting.approximate(self.accountant, "poisson"):
            raise UserError(
                "accountant: found gdp, an approximation that may be below what is spent, expected "
                "prv, rdp or pld for a target_epsilon"
            )
        size, records = sizes(data_loader)
        history = ((1.0, epochs * math.ceil(records / size)),)
        try:
            sigma = accounting.calibrate(
                target_epsilon, self.accountant, history, size / records, target_delta
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        return self.make_private(data_loader=data_loader, noise_multiplier=sigma, **arguments)

    def get_epsilon(self, delta: float) -> float:
        """Epsilon spent so far, at `delta`; inf without noise."""
        _check_delta("delta", delta)
        if not self.steps:
            return 0.0
        if not self.noise_multiplier > 0:
            return math.inf
        history = ((self.noise_multiplier, self.steps),)
        return accounting.epsilon(self.accountant, history, self.sample_rate, delta)

    def state_dict(self) -> dict:
        """What a run must know to go on, beside the states of model and optimiser.

        Without it epsilon would count the steps since the restart only. Generators are kept of a
        run with a `seed` alone: any other draws anew, so that two runs that go on from one state
        have no noise in common. UserError before `make_private`.
        """
        self._expect_use()
        return {
            "steps": self.steps,
            "noise_multiplier": self.noise_multiplier,
            "sample_rate": self.sample_rate,
            "sampling": self._draws.state() if self._repeats else None,
            "noise": self._noise().state() if self._repeats else None,
            "ways": self._book.state(),
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from `state`, after `make_private` with the noise and sample rate it had.

        The model must be on its device by then, of the kind that it was on. Epsilon is of the steps
        before the state and after it: what was made in between must be thrown away. UserError where
        noise or sample rate are others, or this engine has made steps.
        """
        self._expect_use()
        if self.steps:
            raise UserError(
                f"PrivacyEngine: found {self.steps} steps made, which a state would forget, "
                "expected none; load it into a new engine"
            )
        for key in ("noise_multiplier", "sample_rate"):
            if state[key] != getattr(self, key):
                raise UserError(
                    f"state: found {key} {state[key]:g}, expected {getattr(self, key):g} as given "
                    "to make_private; a run goes on as it began"
                )
        self.steps = state["steps"]
        if self._repeats and state["noise"] is not None:
            self._draws.restore(state["sampling"])
            self._noise().restore(state["noise"])
        self._book.restore(state["ways"])

    def _expect_use(self) -> None:
        if math.isnan(self.noise_multiplier):
            raise UserError("PrivacyEngine: found none in use; call make_private first")

    def _noise(self) -> Randomness:
        """The generator of the noise, made at the first step: until then the model may move."""
        if self._normals is None:
            self._normals = self._randomness("noise", self._book.parameters[0].device)
        return self._normals

    def _randomness(self, purpose: str, device: torch.device | str) -> Randomness:
        return stream(None if self.secure_rng else self._seed, purpose, device)


def _check_delta(name: str, delta: float) -> None:
    if not 0 < delta < 1:
        raise UserError(
            f"{name}: found {delta}, expected a number between 0 and 1, below 1 / len(dataset)"
        )


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
        found = tuple(max_grad_norm)
    else:
        found = thresholds(max_grad_norm, clipping, "scaled", tensors)
    if not all(0 < one < math.inf for one in found):
        raise UserError(f"max_grad_norm: found {max_grad_norm}, expected numbers above 0")
    return found


def _check_parameters(
    module: nn.Module, optimizer: torch.optim.Optimizer, book: BookKeeper
) -> None:
    """What is trained must be what is clipped: in the book, and in the optimiser nothing else."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    if own.keys() != {id(p) for p in book.parameters}:
        raise UserError(
            "module: found parameters that were frozen or unfrozen after make_private, which it "
            "would not clip; freeze before, and make another engine for what is trained later"
        )
    if held != own.keys():
        left = sorted(name for key, name in own.items() if key not in held)
        problem = (
            f"parameter {left[0]} of the module is not in it"
            if left
            else f"{len(held - own.keys())} of its parameters are no trainable ones of the module"
        )
        raise UserError(f"optimizer: {problem}; make it over the module's trainable parameters")


def _check_closure(arguments: Sequence) -> None:
    """A closure runs behind the noise, once or often."""
    if any(callable(argument) for argument in arguments):
        raise UserError(
            "optimizer.step(): found a closure, whose gradients would have no noise, expected "
            "none; call backward() before step(), and take an optimiser that needs no closure "
            "(not LBFGS)"
        )


def _check_norms(norms: torch.Tensor | None) -> None:
    """No factor clips a gradient that is not finite."""
    if norms is not None and not norms.isfinite().all():
        raise UserError(
            f"optimizer.step(): found {int((~norms.isfinite()).any(1).sum())} records whose "
            "gradient is not finite, which cannot be clipped; look for such values in the images, "
            "or lower the learning rate"
        )
