"""What the engines on Opacus have in common."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpmedbench.errors import UserError
from dpmedbench.opacus_engines import layers
from dpmedbench.privacy.contract import ContractBroken

# What bfloat16 may change in the norm of a tensor's gradient, relative to that norm and to the
# norm over all tensors: some gradients, as of a bias before a normalisation, are rounding only.
OF_TENSOR, OF_ALL = 0.02, 1e-3
_SEVERAL = 2  # records in a batch, from which on it shows what mixes them


class Engine(ABC):
    """Adds up clipped gradients; see `dpmedbench.mechanisms` for the contract.

    With the first physical batch, and the first of several records, the norms that Opacus finds for
    one record are held against the gradient of that record by autograd.

    Raises:
        UserError: naming a layer or a parameter that the mode cannot do.
    """

    slot: str  # the attribute of a parameter in which Opacus leaves gradients or their norms
    two_passes: bool  # norms come from a first backward pass, the sums from a second

    def __init__(self, model: nn.Module, mode: str, clipping: str, thresholds: Sequence[float]):
        # it comes at every step of a network whose input, the image, needs no gradient
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        layers.check(model, mode)
        layers.straighten(model, mode)
        self.mode = mode
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masks: list[Tensor] | None = None
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._flat = len(thresholds) == 1
        self._norms: list[Tensor] = []
        # through expanded weights autograd has no gradients
        self._proven = _SEVERAL if mode == "ew" else 0
        self.trials = 0
        self.model = self._wrap(model, clipping, tuple(thresholds))
        if mode in ("ew", "ghost"):
            self.model.register_forward_pre_hook(self._refuse_autocast)
        self.thresholds = tuple(thresholds)
        self._methods = layers.methods(model, self.model, mode)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """(R,) for flat clipping, one a trainable tensor for per-layer clipping."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, thresholds: Sequence[float]) -> None:
        self._thresholds = tuple(thresholds)
        self._limit(self._thresholds)

    def backward(self, losses: Tensor) -> None:
        """Add the clipped gradients of one physical batch; losses: (B,), B >= 1."""
        for name, parameter in zip(self._names, self.parameters, strict=True):
            if parameter.grad is not None or getattr(parameter, self.slot, None) is not None:
                raise ContractBroken(
                    f"privacy contract: found a gradient on {name} before the backward pass of "
                    "the engine, expected none; leave backward() to the engine"
                )
        size = min(len(losses), _SEVERAL)
        alone = self._alone(losses[0]) if size > self._proven else None
        self.trials += alone is not None
        losses.sum().backward(retain_graph=self.two_passes)
        self._complete(len(losses))
        if alone is not None:
            self._prove(alone)
            self._proven = size
        self._clip(losses)
        for parameter in self.parameters:
            parameter.grad = None
            setattr(parameter, self.slot, None)

    @abstractmethod
    def sums(self) -> list[Tensor]:
        """The clipped sums since the last call, one a parameter; zeros where nothing came."""

    def norms(self) -> Tensor | None:
        """Per-sample gradient norms since the last call.

        Returns:
            (n, 1) for flat, (n, L) for per-layer clipping; None when every batch was empty.
        """
        found, self._norms = self._norms, []
        return torch.cat(found) if found else None

    def methods(self) -> dict[str, str]:
        """Layer -> how the norm of its gradient is got."""
        return self._methods

    @abstractmethod
    def _wrap(self, model: nn.Module, clipping: str, thresholds: tuple[float, ...]) -> nn.Module:
        """Opacus' module around `model`."""

    @abstractmethod
    def _limit(self, thresholds: tuple[float, ...]) -> None:
        """Clip to `thresholds` from now on."""

    @abstractmethod
    def _clip(self, losses: Tensor) -> None:
        """Add the clipped gradients of `losses` and keep their norms."""

    def _complete(self, count: int) -> None:
        """Check what Opacus left for `count` records; zeros on parameters that were not used.

        Under autocast it comes in bfloat16, whose norms are wrong by up to 0.4 %: clipping by
        those would break the sensitivity, so it gets the dtype of the parameter.
        """
        for name, parameter in zip(self._names, self.parameters, strict=True):
            value = getattr(parameter, self.slot, None)
            if value is None:
                if parameter.grad is not None and parameter.grad.any():
                    raise UserError(
                        f"model: found a gradient on {name} that mode {self.mode} of engine opacus "
                        "did not see, expected each parameter to be used by its own layer and "
                        "each forward pass to have a backward pass; use mode functorch"
                    )
                shape = () if self.two_passes else parameter.shape
                value = parameter.new_zeros(()).expand(count, *shape)
            elif len(value) != count:
                raise UserError(
                    f"model: found gradients of {len(value)} records on {name} in a batch of "
                    f"{count}, expected the batch in the first dimension of every layer"
                )
            setattr(parameter, self.slot, value.to(parameter.dtype))

    def _alone(self, loss: Tensor) -> Tensor:
        """Norms (L,) of the gradient of one record by autograd."""
        self.model.disable_hooks()
        gradient = torch.autograd.grad(
            loss, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        self.model.enable_hooks()
        return torch.stack([g.norm() for g in gradient])

    def _prove(self, alone: Tensor) -> None:
        norms = torch.stack([getattr(p, self.slot)[0].norm() for p in self.parameters])
        wrong = (norms - alone).abs() > OF_TENSOR * alone + OF_ALL * alone.norm()
        if wrong.any():
            at = int(wrong.int().argmax())
            raise UserError(
                f"model: found a gradient of norm {norms[at]:.4g} for a record on "
                f"{self._names[at]} in mode {self.mode} of engine opacus, expected "
                f"{alone[at]:.4g} as by autograd; use mode functorch or engine bookkeeping"
            )

    def _refuse_autocast(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled() and torch.is_autocast_enabled(inputs[0].device.type):
            raise UserError(
                f"precision: found autocast with mode {self.mode} of engine opacus, expected "
                "float32, the only precision in which it keeps to its thresholds; use float32, or "
                "mode hooks or functorch"
            )
