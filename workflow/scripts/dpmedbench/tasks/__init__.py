"""Tasks: one module each, with what a training loop must know of what is learned.

A task has `loss(logits, targets)`, one value per sample; `Scores(num_classes)` with `update` and
`compute`; `constant_scores`; and `row`, which names the scores as columns of the history.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def load(task: str) -> ModuleType:
    """The module of a task ("segmentation")."""
    return importlib.import_module(f"{__name__}.{task}")
