"""DP-SGD by Book-Keeping (Bu et al. 2023, arXiv:2210.00038): the engine of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.mechanisms import Capabilities, Mode

if TYPE_CHECKING:
    from dpmedbench.bookkeeping import BookKeeper

_FLAT = frozenset((function, "flat") for function in ("abadi", "automatic", "adaptive"))
_BOTH = _FLAT | {(function, "per_layer") for function in ("abadi", "automatic")}

CAPABILITIES = Capabilities(
    "Book-Keeping",
    private=True,
    modes={
        "mix_opt": Mode(_BOTH, sparsification=True),
        "mix_flops": Mode(_BOTH, sparsification=True),
        "mix_time": Mode(_BOTH, sparsification=True),
        "mix_ghost": Mode(_BOTH),
        "base": Mode(_BOTH),
        "ghost_clip": Mode(_FLAT, bfloat16=False),
        "fast_gradient_clip": Mode(_FLAT, bfloat16=False),
    },
)


def build(model, mode, clipping, thresholds, plan=None) -> BookKeeper:
    """The engine; see `dpmedbench.bookkeeping.BookKeeper`."""
    from dpmedbench.bookkeeping import BookKeeper

    return BookKeeper(model, mode, clipping, thresholds)
