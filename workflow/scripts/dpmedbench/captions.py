"""What the captions of the report say of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from dpmedbench.config import Study
from dpmedbench.figures import wording


def facts(study: Study, datasets: Sequence[str]) -> dict[str, object]:
    """The fields that a figure's caption may use, for one or more datasets of `study`."""
    grids = [grid for grid in study.grids if set(datasets) & set(grid.datasets)]
    noise = [f"sigma{sigma:g}" for grid in grids for sigma in grid.noise_multiplier]
    noise += [f"eps{value:g}" for grid in grids for value in grid.target_epsilon]
    noise += [f"beta{value:g}" for grid in grids for value in grid.beta]
    sizes = [study.datasets[name].image_size for name in datasets]
    return {
        "study": study.study,
        "dataset": _joined(datasets),
        "models": _joined(wording.name(name) for grid in grids for name in grid.models),
        "mechanisms": _joined(wording.name(name) for grid in grids for name in grid.mechanisms),
        "noise": _joined(map(wording.noise_name, noise)) or "none",
        "delta": wording.power(study.privacy.delta),
        "accountant": study.privacy.accountant.upper(),
        "epochs": study.training.epochs,
        "batch_size": study.training.batch_size,
        "learning_rate": f"{study.training.learning_rate:g}",
        "image_size": _joined(f"{height} x {width}" for height, width in sizes),
        "unit": study.privacy.unit,
    }


def _joined(names) -> str:
    return ", ".join(dict.fromkeys(names))
