"""Tasks: one module each, with a class `Task` that tells the training loop what is learned.

A task has

    loss(logits, targets)     one value a sample, (B,)
    scores()                  what gathers scores: update(logits, targets), compute() -> dict
    row(scores, part)         the computed scores as columns of the history, named by their part
                              of the data ("train", "val", "test")
    constant_row(training_targets, targets, part)   the same of the constant predictor
    summary(row)              a row of the history in a few words

    EVALUATED                 the parts of the data, beside train, that are scored each epoch
    FOLLOWS_TRAINING          whether the batches of training are scored as they are seen
    SELECTED_BY               the column that selection best_validation maximises
"""

from __future__ import annotations

import importlib


def load(task: str) -> type:
    """The class of a task: "segmentation" or "classification"."""
    return importlib.import_module(f"{__name__}.{task}").Task
