"""DP-SGD by fastDP, the Book-Keeping library of its authors (Bu et al. 2023, arXiv:2210.00038).

Its PrivacyEngine is called as it is, where it is installed; the commit and the packages of
CAPABILITIES are those it was verified with. Module hooks clip during the backward pass and add to
`parameter.private_grad`, or begin one from noise of fastDP's own where there is none: here there
is always one, so that sums come without noise while fastDP knows the true noise multiplier.

fastDP freezes layers it does not know and clips others wrongly, both without an error.
`check_layers` refuses what can be seen in the model. The rest shows on the first batch, which is
compared with autograd, and on each batch: every tensor with a gradient must be clipped once.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING

from dpmedbench.dpsgd.clipping import GAMMA, STABILITY, factors
from dpmedbench.errors import UserError
from dpmedbench.mechanisms import FLAT, PER_LAYER, Capabilities, Mode, Requirement
from dpmedbench.mechanisms._fastdp_layers import check_layers
from dpmedbench.privacy.plan import clipping_norm

if TYPE_CHECKING:
    import torch

    from dpmedbench.privacy.plan import PrivacyPlan

_INSTALL = (
    'run pip install "fastDP @ git+https://github.com/awslabs/fast-differential-privacy'
    '@3d5cc561aa337c72f79873ccc4fe8b900b5493b5" transformers==5.23.0'
)
_MODE = Mode([way for way in FLAT + PER_LAYER if way[0] != "adaptive"], bfloat16=False)

CAPABILITIES = Capabilities(
    private=True,
    modes={"mix_opt": _MODE, "mix_ghost": _MODE, "ghost": _MODE},
    requires=Requirement("fastDP", _INSTALL),
)

_MODES = {"mix_opt": "MixOpt", "mix_ghost": "MixGhostClip", "ghost": "ghost"}
_CLIPPING = {"abadi": ("Abadi", STABILITY), "automatic": ("automatic", GAMMA)}
_COMPARED = 2  # records of a batch that are compared with autograd
_SCALE = 100.0  # their gradients' norm over the clipping norm, so that they are clipped
_TOLERANCE = 0.02  # of the threshold, for each of them; what fastDP gets wrong is more
_ROUNDING = 1e-4  # of the whole gradient: for tensors whose gradient cancels out


def build(model, mode, clipping, thresholds, plan=None) -> FastDPEngine:
    """The engine; `plan` is what fastDP's own epsilon is computed from.

    Raises:
        UserError: where fastDP is not installed, or would not train `model` correctly.
    """
    try:
        from fastDP import PrivacyEngine
    except ImportError as error:
        raise UserError(f"mechanism fastdp: found no fastDP ({error}); {_INSTALL}") from None
    check_layers(model)
    if len(set(thresholds)) > 1:
        raise UserError(
            f"max_grad_norm: found thresholds from {min(thresholds):g} to {max(thresholds):g}, "
            "expected the same for each tensor with engine fastdp; use engine bookkeeping"
        )
    return FastDPEngine(PrivacyEngine, model, mode, clipping, thresholds, plan)


class FastDPEngine:
    """Sums of clipped gradients by fastDP; `model` is trained in place, its hooks stay on it.

    Raises:
        UserError: on the first batch, where fastDP does not clip the model correctly.
    """

    def __init__(
        self,
        kind: type,
        model: torch.nn.Module,
        mode: str,
        clipping: str,
        thresholds: tuple[float, ...],
        plan: PrivacyPlan | None,
    ):
        import torch

        self.model, self._clipping, self._thresholds = model, clipping, tuple(thresholds)
        self._plan = plan
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._names, self.parameters = (list(part) for part in zip(*named, strict=True))
        function, stability = _CLIPPING[clipping]
        promise = (
            {
                "batch_size": plan.batch_size,
                "sample_size": plan.num_records,
                "num_steps": plan.steps,
                "noise_multiplier": plan.noise_multiplier,
                "target_delta": plan.delta,
            }
            if plan
            else {"batch_size": 1, "sample_size": 1, "num_steps": 1, "noise_multiplier": 0.0}
        )
        with contextlib.redirect_stdout(io.StringIO()):
            self._fastdp = kind(
                model,
                **promise,
                max_grad_norm=clipping_norm(thresholds),
                clipping_fn=function,
                # given, it keeps fastDP from overwriting max_grad_norm in automatic clipping
                numerical_stability_constant=stability,
                clipping_mode=_MODES[mode],
                clipping_style="all-layer" if len(thresholds) == 1 else "param-wise",
                loss_reduction="sum",
            )
        self._layers = dict(self._fastdp.named_layers)
        # of each layer the smallest tensor: what the backward pass is run for, so that it spares
        # the gradients of the weights (ghost differentiation)
        self._origins = [
            min((p for p in layer.parameters() if p.requires_grad), key=torch.Tensor.numel)
            for layer in self._layers.values()
        ]
        self._layer_of = [list(self._layers).index(name.rpartition(".")[0]) for name in self._names]
        self._compared = 0
        self._forget()
        model.register_forward_hook(self._after_forward)
        warnings.filterwarnings("ignore", message="Using a non-full backward hook")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds, fixed: fastDP's hooks hold them."""
        return self._thresholds

    @property
    def masks(self) -> None:
        """None: fastDP has no per-sample gradients to mask."""

    def backward(self, losses: torch.Tensor) -> None:
        """Add the clipped gradients of one physical batch; losses: (B,), B >= 1.

        Raises:
            UserError: where a tensor was not clipped, or not as autograd says.
        """
        for name, layer in self._layers.items():
            rows = getattr(layer, "activations", None)
            if rows is not None and len(rows) != len(losses):
                raise UserError(
                    f"model: layer {name} has {len(rows)} rows for a batch of {len(losses)}, "
                    "expected one a record with engine fastdp; use engine bookkeeping"
                )
        if min(len(losses), _COMPARED) > self._compared:
            self._compare(losses)
        else:
            self._clip(losses)

    def sums(self) -> list[torch.Tensor]:
        """The clipped sums since the last call, one a parameter."""
        found = [parameter.private_grad for parameter in self.parameters]
        self._forget()
        return found

    def norms(self) -> None:
        """None: fastDP drops its norms where it clips."""

    def methods(self) -> dict[str, str]:
        """How the norm of each layer's weight is got; empty before the first batch."""
        import torch

        return {
            name: "ghost norm"
            if isinstance(layer, torch.nn.Embedding) or getattr(layer, "use_gc", False)
            else "per-sample gradient"
            for name, layer in self._layers.items()
            if self._compared
        }

    def own_epsilon(self, steps: int) -> float | None:
        """Epsilon after `steps` steps by fastDP's RDP accountant, at the plan's delta.

        None without a plan, or where its noise or sampling is not what fastDP assumes: constant
        noise on Poisson batches.
        """
        plan = self._plan
        if plan is None or plan.sampling != "poisson" or set(plan.noise_factors) - {1.0}:
            return None
        return float(self._fastdp.get_privacy_spent(steps=steps)["eps_rdp"])

    def _forget(self) -> None:
        """Give each parameter an empty sum."""
        for parameter in self.parameters:
            parameter.private_grad = parameter.detach().new_zeros(parameter.shape)

    def _after_forward(self, model, arguments, output) -> None:
        import torch

        if torch.is_autocast_enabled(self.parameters[0].device.type):
            raise UserError(
                "training.precision: found autocast to half precision, in which fastDP takes "
                "norms that are too small; expected float32 with engine fastdp"
            )
        if not torch.is_grad_enabled():  # of no use, and as large as those of a training step
            for layer in self._layers.values():
                layer.__dict__.pop("activations", None)

    def _clip(self, losses: torch.Tensor, retain_graph: bool = False) -> None:
        """Have fastDP add the clipped gradients of `losses`."""
        import torch

        # in-place additions are counted by the version of a tensor
        before = [parameter.private_grad._version for parameter in self.parameters]
        reached = torch.autograd.grad(
            losses.sum(), self._origins, retain_graph=retain_graph, allow_unused=True
        )
        for name, parameter, version, layer in zip(
            self._names, self.parameters, before, self._layer_of, strict=True
        ):
            times = parameter.private_grad._version - version
            if times != (reached[layer] is not None):
                raise UserError(
                    f"model: fastDP clipped the gradient of {name} {times} times in one batch; "
                    "register layers in the order of the forward pass, use each once, and no "
                    "in-place operations on what they return, or use engine bookkeeping"
                )

    def _compare(self, losses: torch.Tensor) -> None:
        """As `_clip`, and hold fastDP against autograd, one record after the other.

        The gradients of the compared records are scaled so that they are clipped: an error of
        the norms shows as well as one of the gradients.
        """
        import torch

        activations = {
            layer: layer.activations
            for layer in self._layers.values()
            if hasattr(layer, "activations")
        }

        def restore() -> None:  # what fastDP drops where it clips
            for layer, kept in activations.items():
                layer.activations = kept

        self._clip(losses, retain_graph=True)
        sums = self.sums()
        compared, scales = losses[:_COMPARED], []
        expected = [torch.zeros_like(total) for total in sums]
        allowed = losses.new_zeros(len(sums))
        for loss in compared:
            restore()
            gradient = torch.autograd.grad(
                loss, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            tensors = torch.stack([g.norm() for g in gradient])
            whole = tensors.norm()
            scale = _SCALE * self._fastdp.max_grad_norm / whole
            norms = (whole[None] if len(self._thresholds) == 1 else tensors) * scale
            weights = factors(norms[None], self._clipping, self._thresholds)[0] * scale
            weights = weights.expand(len(sums))
            for total, g, weight in zip(expected, gradient, weights, strict=True):
                total += weight * g
            allowed = allowed + _TOLERANCE * self._thresholds[0] + _ROUNDING * weights * whole
            scales.append(scale)
        scales = torch.stack(scales).detach()
        restore()
        self._forget()
        self._clip(scales * compared)
        found = self.sums()
        for parameter, total in zip(self.parameters, sums, strict=True):
            parameter.private_grad = total
        if not scales.isfinite().all():
            return  # a record without a gradient, or whose gradient is no number, tells nothing
        errors = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)])
        if not (errors <= allowed).all():
            worst = int((errors / allowed).nan_to_num(torch.inf).argmax())
            raise UserError(
                "model: fastDP's clipped gradients are not those of autograd on the first batch "
                f"(most for {self._names[worst]}, off by "
                f"{float(errors[worst]) / self._thresholds[0]:.2g} of the threshold); a layer is "
                "used twice, outside of its forward, or mixes records: use engine bookkeeping"
            )
        self._compared = len(compared)
