"""The cells of a study: one training job each."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath

from dpmedbench.config import Grid, Section, Study


class Cell(Section):
    """One training job."""

    study: str
    dataset: str
    model: str
    mechanism: str
    privacy: str
    fold: int
    seed: int
    noise_multiplier: float | None
    target_epsilon: float | None

    @property
    def folder(self) -> str:
        """Where its results lie, below results/<study>/cells."""
        return str(
            PurePosixPath(self.dataset, self.model, self.mechanism, self.privacy)
            / f"fold{self.fold}"
            / f"seed{self.seed}"
        )


def cells(study: Study) -> list[Cell]:
    """Every cell of the study once, in the order of the grids."""
    found: dict[str, Cell] = {}
    for grid in study.grids:
        product = itertools.product(
            grid.datasets, grid.models, grid.mechanisms, grid.folds, grid.seeds
        )
        for dataset, model, mechanism, fold, seed in product:
            for noise_multiplier, target_epsilon, label in _privacy(study, grid, mechanism):
                cell = Cell(
                    study=study.study,
                    dataset=dataset,
                    model=model,
                    mechanism=mechanism,
                    privacy=label,
                    fold=fold,
                    seed=seed,
                    noise_multiplier=noise_multiplier,
                    target_epsilon=target_epsilon,
                )
                found.setdefault(cell.folder, cell)
    return list(found.values())


def _privacy(study: Study, grid: Grid, mechanism: str) -> list[tuple]:
    if not study.mechanisms[mechanism].private:
        return [(None, None, "none")]
    return [(sigma, None, f"sigma{sigma:g}") for sigma in grid.noise_multiplier] + [
        (None, epsilon, f"eps{epsilon:g}") for epsilon in grid.target_epsilon
    ]


def settings(study: Study, cell: Cell) -> dict:
    """All that decides a cell's result, resolved, as plain JSON values.

    Keys: identity (the columns of every table), dataset, model, mechanism, privacy, training.
    """
    mechanism = study.mechanisms[cell.mechanism]
    training = study.training.model_dump(mode="json")
    training["physical_batch_size"] = training["physical_batch_size"] or training["batch_size"]
    training["learning_rate"] = mechanism.learning_rate or training["learning_rate"]
    return {
        "identity": {
            "study": cell.study,
            "dataset": cell.dataset,
            "model": cell.model,
            "mechanism": cell.mechanism,
            "privacy": cell.privacy,
            "fold": cell.fold,
            "seed": cell.seed,
            "engine": mechanism.engine,
            "clipping": mechanism.clipping,
            "clipping_style": mechanism.clipping_style,
            "noise_multiplier": cell.noise_multiplier,
            "target_epsilon": cell.target_epsilon,
        },
        "model": study.models[cell.model].model_dump(mode="json"),
        "mechanism": mechanism.model_dump(mode="json"),
        "privacy": study.privacy.model_dump(mode="json"),
        "training": training,
    }
