"""What the captions of the report say of the configuration."""

from __future__ import annotations

from dpmedbench.config import Study


def facts(study: Study, dataset: str) -> dict[str, object]:
    """The fields that a figure's caption may use, for one dataset of `study`."""
    grids = [grid for grid in study.grids if dataset in grid.datasets]
    noise = [f"sigma {sigma:g}" for grid in grids for sigma in grid.noise_multiplier]
    noise += [f"target epsilon {value:g}" for grid in grids for value in grid.target_epsilon]
    noise += [f"beta {value:g}" for grid in grids for value in grid.beta]
    height, width = study.datasets[dataset].image_size
    return {
        "study": study.study,
        "dataset": dataset,
        "models": _joined(name for grid in grids for name in grid.models),
        "mechanisms": _joined(name for grid in grids for name in grid.mechanisms),
        "noise": _joined(noise) or "none",
        "delta": f"{study.privacy.delta:g}",
        "accountant": study.privacy.accountant.upper(),
        "epochs": study.training.epochs,
        "batch_size": study.training.batch_size,
        "learning_rate": f"{study.training.learning_rate:g}",
        "image_size": f"{height} x {width}",
        "unit": study.privacy.unit,
    }


def _joined(names) -> str:
    return ", ".join(dict.fromkeys(names))
