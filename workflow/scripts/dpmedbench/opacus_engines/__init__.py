"""Sums of clipped gradients by Opacus, in its modes; no noise and no step."""

from __future__ import annotations

from dpmedbench.opacus_engines.ghost import GhostEngine
from dpmedbench.opacus_engines.per_sample import PerSampleEngine

__all__ = ["GhostEngine", "PerSampleEngine"]
