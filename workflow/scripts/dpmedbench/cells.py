"""The cells of a study: one training job each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import PurePosixPath

from dpmedbench import mechanisms, models
from dpmedbench.config import Grid, Section, Study
from dpmedbench.errors import UserError

EXECUTION = ("device", "checkpoint_seconds", "physical_batch_size", "cells_per_gpu")


class Cell(Section):
    """One training job."""

    study: str
    dataset: str
    model: str
    mechanism: str
    privacy: str
    fold: int
    seed: int
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    beta: float | None = None

    @property
    def folder(self) -> str:
        """Where its results lie, below results/<study>/cells."""
        return str(
            PurePosixPath(self.dataset, self.model, self.mechanism, self.privacy)
            / f"fold{self.fold}"
            / f"seed{self.seed}"
        )


def left_out(
    study: Study, deployed: bool = False, among: Iterable[Cell] | None = None
) -> dict[str, list[str]]:
    """The reasons for which cells, or those `among`, are not trained, each with their folders.

    `deployed` is as in why_not.
    """
    found: dict[str, list[str]] = {}
    for cell in every(study) if among is None else among:
        if why := why_not(study, cell, deployed):
            found.setdefault(why, []).append(cell.folder)
    return found


def why_not(study: Study, cell: Cell, deployed: bool = False) -> str | None:
    """Why a cell is left out, None where it is trained.

    With `deployed`, jobs run in environments of their own: what is installed here is of no matter.
    """
    dataset = study.datasets[cell.dataset]
    if dataset.optional and dataset.absent:
        return (
            f"dataset {cell.dataset}: there is nothing at {dataset.path} (datasets."
            f"{cell.dataset}.path); resources/README.md says where its files come from"
        )
    task, network = dataset.spec.task, study.models[cell.model].network
    if models.task(network) != task:
        return f"network {network} is for {models.task(network)}, dataset {cell.dataset} for {task}"
    return None if deployed else mechanisms.missing(study.mechanisms[cell.mechanism].engine)


def every(study: Study) -> list[Cell]:
    """Every cell of the grids, once, in their order.

    Raises UserError where two noise levels would have one folder.
    """
    found: dict[str, Cell] = {}
    for grid in study.grids:
        product = itertools.product(
            grid.datasets, grid.models, grid.mechanisms, grid.folds, grid.seeds
        )
        for dataset, model, mechanism, fold, seed in product:
            for privacy in _privacy(study, grid, mechanism):
                cell = Cell(
                    study=study.study,
                    dataset=dataset,
                    model=model,
                    mechanism=mechanism,
                    fold=fold,
                    seed=seed,
                    **privacy,
                )
                same = found.setdefault(cell.folder, cell)
                if same != cell:
                    raise UserError(
                        f"config: grids: found the noise levels {_level(same)!r} and "
                        f"{_level(cell)!r}, which would share the folder {cell.folder}; leave one "
                        "out, or make them differ in the first six digits"
                    )
    return list(found.values())


def _level(cell: Cell) -> float | None:
    return cell.noise_multiplier or cell.target_epsilon or cell.beta


def _privacy(study: Study, grid: Grid, mechanism: str) -> list[dict]:
    """The noise levels of a mechanism: fields of a cell."""
    if study.mechanisms[mechanism].local:
        levels = [("beta", "beta", grid.beta)]
    elif study.mechanisms[mechanism].private:
        levels = [
            ("sigma", "noise_multiplier", grid.noise_multiplier),
            ("eps", "target_epsilon", grid.target_epsilon),
        ]
    else:
        return [{"privacy": "none"}]
    return [
        {"privacy": f"{label}{value:g}", field: value}
        for label, field, values in levels
        for value in values
    ]


def noise(study: Study, cell: Cell) -> dict | None:
    """The noise on the images of a local cell; None where it has none.

    Keys: dataset, mode, beta and seed (None: from the operating system). Cells that agree in them
    share their images.
    """
    mechanism = study.mechanisms[cell.mechanism]
    if not mechanism.local:
        return None
    return {
        "dataset": cell.dataset,
        "mode": mechanism.mode or mechanisms.default_mode(mechanism.engine),
        "beta": cell.beta,
        "seed": None if study.privacy.secure_rng else study.datasets[cell.dataset].noise_seed,
    }


def settings(study: Study, cell: Cell) -> dict:
    """All that decides a cell's result, resolved, as plain JSON values.

    Keys: identity (the columns of every table), model, task, mechanism, privacy (empty where the
    training is not private), training. A cell's job runs again where they change.
    """
    mechanism = study.mechanisms[cell.mechanism]
    weights = study.datasets[cell.dataset].class_weights
    way = mechanism.model_dump(mode="json")
    way["mode"] = mode = mechanism.mode or mechanisms.default_mode(mechanism.engine)
    if mechanism.local:
        way["beta"] = cell.beta
    training = study.training.model_dump(mode="json", exclude=set(EXECUTION))
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
            "mode": mode,
            "clipping": mechanism.clipping,
            "clipping_style": mechanism.clipping_style,
            "noise_multiplier": cell.noise_multiplier,
            "target_epsilon": cell.target_epsilon,
        },
        "model": study.models[cell.model].model_dump(mode="json"),
        "task": {} if weights is None else {"class_weights": weights},
        "mechanism": way,
        "privacy": study.privacy.model_dump(mode="json") if mechanism.private else {},
        "training": training,
    }


def execution(study: Study) -> dict:
    """How cells are trained where that changes nothing of what comes out: the keys of EXECUTION."""
    chosen = study.training.model_dump(mode="json", include=set(EXECUTION))
    return chosen | {
        "physical_batch_size": study.training.physical_batch_size or study.training.batch_size
    }
