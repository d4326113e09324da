"""What the epsilon of a cell covers, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context

from dpmedbench import mechanisms, pretrained
from dpmedbench.privacy import accounting

MODEL = "model.safetensors"
FILES = {
    "history.parquet": "not covered: losses, scores and gradient norms of training and validation "
    "patients, without noise",
    "scores.parquet, scans.png, masks.h5, predictions.parquet": "not covered: scores, ids and "
    "images of test patients",
    "privacy.json": "not covered: sizes of batches and of the noise as they were drawn, beside the "
    "promise, which `share` packs without them",
    "cost.json, *.benchmark.tsv": "not covered: time and memory, which follow the batches drawn",
    "manifest.json": "names this machine; its digest of the data proves which they were",
    "state/": "not covered: losses so far and, of a seeded cell, the state of its noise",
    "*.log": "not covered: losses; may name files and patients",
}


def uncovered(settings: Mapping, epsilon: float | None) -> str | None:
    """Why no epsilon covers the weights of a cell; None where one does.

    Args:
        settings: of the cell (`cells.settings`).
        epsilon: of its training images; None or infinite where it is not private.
    """
    if mechanisms.capabilities(settings["mechanism"]["engine"]).local:
        return "the noise is on the images it was trained on, not on their labels"
    if epsilon is None or not math.isfinite(epsilon):
        return "it is not private"
    privacy = settings["privacy"]
    if accounting.approximate(privacy["accountant"], privacy["sampling"]):
        return "accountant gdp approximates epsilon and may be below what was spent"
    if not pretrained.is_public(settings["model"]):
        return "it began with weights of its own weights_file, which may have seen the patients"
    if settings["training"]["selection"] != "last":
        return "its epoch was chosen on validation patients"
    if not privacy["secure_rng"]:
        return "its noise comes from a seed, and whoever knows the seed can take it off"
    return None


def at_least(epsilon: float) -> str:
    """`epsilon` in four digits, rounded up: what is promised is never less than was spent."""
    return f"{float(Context(4, ROUND_CEILING).create_decimal(repr(float(epsilon)))):.4g}"


def note(settings: Mapping, epsilon: float | None) -> dict[str, str]:
    """What of each file of a cell is private, in words, for its manifest."""
    why = uncovered(settings, epsilon)
    covered = f"covered by epsilon {at_least(epsilon)}, see privacy.json" if why is None else None
    return {MODEL: covered or f"not covered: {why}"} | FILES
