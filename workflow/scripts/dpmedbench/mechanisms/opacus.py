"""DP-SGD by Opacus (Yousefpour et al. 2021, arXiv:2109.12298), in four of its modes.

hooks      per-sample gradients by hooks on the layers
functorch  per-sample gradients by vmap over each layer: slower, knows every layer
ew         per-sample gradients by torch's expanded weights
ghost      two backward passes, the first for the norms: ghost norms for Linear and Embedding
           (Li et al. 2022, arXiv:2110.05679), fast gradient clipping (Lee & Kifer 2021,
           arXiv:2009.03106) for every other layer

Opacus' own optimizers clip for abadi; automatic clipping, which Opacus lacks, is put on their
interface. `PrivacyEngine.make_private` is not used: it derives the sample rate and the divisor
from the length of a loader (1/len, int(N q)) and hands back a new loader that is easily left
unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dpmedbench.mechanisms import FLAT, PER_LAYER, Capabilities, Mode

if TYPE_CHECKING:
    from torch import nn

    from dpmedbench.opacus_engines import GhostEngine, PerSampleEngine

_PER_SAMPLE = Mode(FLAT + PER_LAYER, sparsification=True)

CAPABILITIES = Capabilities(
    private=True,
    modes={
        "hooks": _PER_SAMPLE,
        "functorch": _PER_SAMPLE,
        "ew": replace(_PER_SAMPLE, bfloat16=False),
        "ghost": Mode(FLAT, bfloat16=False),
    },
)


def build(
    model: nn.Module, mode: str, clipping: str, thresholds: Sequence[float], plan=None
) -> PerSampleEngine | GhostEngine:
    """The engine; `plan` does not apply.

    Raises:
        UserError: naming the layer that the mode cannot do, and one that can.
    """
    from dpmedbench.opacus_engines import GhostEngine, PerSampleEngine

    kind = GhostEngine if mode == "ghost" else PerSampleEngine
    return kind(model, mode, clipping, thresholds)
