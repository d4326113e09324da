"""DP-SGD by Book-Keeping (Bu et al. 2023, arXiv:2210.00038): the engine of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.mechanisms import FLAT, PER_LAYER, TWO_PASSES, Capabilities, Mode

if TYPE_CHECKING:
    from dpmedbench.bookkeeping import BookKeeper

_BOTH = FLAT + PER_LAYER

CAPABILITIES = Capabilities(
    private=True,
    modes={
        "mix_opt": Mode(_BOTH, sparsification=True),
        "mix_flops": Mode(_BOTH, sparsification=True),
        "mix_time": Mode(_BOTH, sparsification=True),
        "mix_ghost": Mode(_BOTH),
        "base": Mode(_BOTH),
        **dict.fromkeys(TWO_PASSES, Mode(FLAT, bfloat16=False)),
    },
)


def build(model, mode, clipping, thresholds, plan=None) -> BookKeeper:
    """The engine; see `dpmedbench.bookkeeping.BookKeeper`."""
    from dpmedbench.bookkeeping import BookKeeper

    return BookKeeper(model, mode, clipping, thresholds)
