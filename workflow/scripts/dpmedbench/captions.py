"""What captions and the front page of the report say of the cells that were run, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpmedbench import rst
from dpmedbench.cells import Cell, settings
from dpmedbench.config import Study
from dpmedbench.figures import FigureInfo, wording
from dpmedbench.privacy import accounting


def of_figures(study: Study, cells: Sequence[Cell], shown: Sequence[FigureInfo]) -> dict[str, str]:
    """The caption of each figure over `cells`, by name: each tells of the cells of its task."""
    of_task = {
        task: facts(study, [cell for cell in cells if task in (None, _task(study, cell))])
        for task in {figure.task for figure in shown}
    }
    return {figure.name: figure.caption_with(of_task[figure.task]) for figure in shown}


def facts(study: Study, cells: Sequence[Cell]) -> dict[str, object]:
    """The fields that a figure's caption may use, for the `cells` of `study` that it shows."""
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    sizes = [study.datasets[name].image_size for name in datasets]
    noise = wording.noises([cell.privacy for cell in cells])
    return {
        "study": study.study,
        "dataset": _joined(_dataset(study, name) for name in datasets),
        "models": _joined(wording.name(cell.model) for cell in cells),
        "mechanisms": _joined(wording.name(cell.mechanism) for cell in cells),
        "noise": _joined(map(wording.noise_name, noise)) or "none",
        "delta": wording.power(study.privacy.delta),
        "accountant": study.privacy.accountant.upper()
        + ", an approximation and no bound" * _approximate(study),
        "epochs": study.training.epochs,
        "batch_size": study.training.batch_size,
        "learning_rate": _learning_rates(study, cells),
        "image_size": _joined(f"{height} x {width}" for height, width in sizes),
        "unit": study.privacy.unit,
    }


def front_page(
    study: Study,
    cells: Sequence[Cell],
    left_out: Mapping[str, Sequence[str]],
    missing: Mapping[str, str],
    findings: Mapping[str, object],
) -> dict[str, object]:
    """All that the front page says; texts as reStructuredText takes them, and `config`, the study.

    `cells` have results; `left_out` are not trained, by reason, and `missing` says of others why
    they have no results. Of both the front page gets pairs. `findings` (`report.findings.find`)
    are empty before there are any.
    """
    return rst.escaped(
        facts(study, cells)
        | {"title": study.title or study.study, "cells": len(cells), "findings": findings}
        | {"left_out": [*left_out.items()], "missing": [*missing.items()]}
        | {"approximate": _approximate(study)}
        | {"classified": any(_task(study, cell) == "classification" for cell in cells)}
        | {"local": any(study.mechanisms[cell.mechanism].local for cell in cells)}
    ) | {"config": study.model_dump(mode="json")}


def _task(study: Study, cell: Cell) -> str:
    return study.datasets[cell.dataset].spec.task


def _approximate(study: Study) -> bool:
    return accounting.approximate(study.privacy.accountant, study.privacy.sampling)


def _dataset(study: Study, name: str) -> str:
    return f"{name} [generated]" if study.datasets[name].source == "phantom" else name


def _learning_rates(study: Study, cells: Sequence[Cell]) -> str:
    """ "0.005", or "0.005 for Non-private, 0.01 for Opacus flat and Bookkeeping"."""
    found: dict[float, list[str]] = {}
    for mechanism, cell in {cell.mechanism: cell for cell in cells}.items():
        rate = settings(study, cell)["training"]["learning_rate"]
        found.setdefault(rate, []).append(wording.name(mechanism))
    if len(found) == 1:
        return f"{next(iter(found)):g}"
    return _joined(f"{rate:g} for {' and '.join(names)}" for rate, names in found.items())


def _joined(names) -> str:
    return ", ".join(dict.fromkeys(names))
