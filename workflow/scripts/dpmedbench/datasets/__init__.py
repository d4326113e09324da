"""The datasets: one module each, found by itself.

A dataset is a module of this package with

    SPEC: DatasetSpec
    read(folder: Path, options: Mapping[str, object]) -> Iterable[Record]
                              one raw file in memory at a time; a sequence where their number is
                              known (for the progress)
    write_phantom(folder: Path, patients: int, scans: int, image_size: tuple[int, int],
                  seed: int) -> None                        the same raw layout, drawn

`options` has the value of every option in SPEC.options (see `DatasetSpec.choose`). A loader whose
classes or channels depend on the data has also

    describe(folder: Path, options: Mapping[str, object]) -> DatasetSpec
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

from dpmedbench.errors import UserError


def names() -> tuple[str, ...]:
    """The names of all datasets, in alphabetical order."""
    return tuple(sorted(_modules()))


def load(name: str) -> ModuleType:
    """The module of the dataset `name`; UserError where there is none."""
    modules = _modules()
    if name not in modules:
        raise UserError(f"dataset: found {name!r}, expected one of {', '.join(sorted(modules))}.")
    return modules[name]


@functools.cache
def _modules() -> dict[str, ModuleType]:
    found = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {module.SPEC.name: module for module in found if hasattr(module, "SPEC")}
