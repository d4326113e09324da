"""The figures: one module a figure, found by reading it, drawn from the collected tables.

A figure is a module of this package with a function `draw`. Its docstring is its title (first
line) and its caption (the rest, with fields of `FIELDS` filled from the configuration of the
study). Its constants, all literals:

- ORDER: its place; NEEDS: the keyword arguments of `draw`, see below;
- TASK: "segmentation" or "classification", where it is not for datasets of both;
- SCOPE: "dataset" (left out: so), drawn for each, or "study", drawn once over all of them;
- PUBLISHED: {study of `STUDIES`: what the figure is there}, where it is in a published one.

`NEEDS` are from `INPUTS`; of tables, only the rows of the dataset, or all with SCOPE "study":

- history, scores, cost, privacy, summary, comparisons, claims: the table as a DataFrame;
- store: path of the dataset's HDF5;
- perturbed: paths of its HDF5 with noise (`perturbation`); such a figure is only for studies with
  local mechanisms;
- masks: [(identity, path of masks.h5), ...] of the cells, where identity has `results.CELL`;
- networks: paths of the JSON that describes each network (`architecture`);
- benchmark: paths of what benchmarks/engines.py wrote, none where it was not run;
- left_out, missing: {reason: cells that the study leaves out}, {cell: why it has no results};
- support: what every engine can do (`support.rows`);
- real: {dataset: its loader}, of the datasets that are not generated: what is published of the
  loader's data may stand beside them.

`draw` returns a `matplotlib.figure.Figure`. A second function `numbers`, with arguments of `draw`,
may return a sentence or two with what the data say; it ends the caption. Modules without `draw`
are what figures share, and `scans`, the picture of one cell. Nothing here imports matplotlib
before a figure is drawn, and nothing ever imports torch.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dpmedbench import rst
from dpmedbench.errors import UserError
from dpmedbench.figures.described import (
    BEYOND,
    FIELDS,
    INPUTS,
    STUDIES,
    TABLES,
    FigureInfo,
    describe,
)
from dpmedbench.files import replacing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "BEYOND", "FIELDS", "INPUTS", "STUDIES", "TABLES", "FigureInfo", "catalog", "draw", "load",
    "numbers", "render", "save",
]  # fmt: skip

FORMATS = (".svg", ".png", ".pdf")
DPI = 200


@functools.cache
def catalog() -> dict[str, FigureInfo]:
    """Every figure by name, in the order of `ORDER`.

    Modules are parsed, not imported. Raises UserError naming the module and what it lacks.
    """
    paths = sorted(Path(__file__).parent.glob("*.py"))
    found = [info for path in paths if (info := describe(path)) is not None]
    return {info.name: info for info in sorted(found, key=lambda info: (info.order, info.name))}


def draw(name: str, **inputs: object) -> Figure:
    """Draw figure `name` from its inputs (its `NEEDS`), in the one style of all figures."""
    info = _info(name)
    from dpmedbench.figures import style

    with style.theme():
        return _module(name).draw(**{need: inputs[need] for need in info.needs})


def numbers(name: str, **inputs: object) -> str:
    """What the data of figure `name` say, in a sentence or two; empty where it has no words."""
    _info(name)
    function = getattr(_module(name), "numbers", None)
    if function is None:
        return ""
    return function(**{need: inputs[need] for need in inspect.signature(function).parameters})


def render(
    name: str,
    dataset: str | None,
    inputs: Mapping[str, object],
    outputs: Sequence[Path],
    caption: str = "",
    mechanisms: Mapping[str, bool] | None = None,
) -> None:
    """Draw figure `name` for `dataset` (None: of SCOPE "study") and save it to `outputs`.

    `inputs` has what it needs: the path of a table or store, lists of paths, values. Outputs are
    .svg, .png, .pdf, .txt, the `caption` with its numbers, and .rst, the same for the report.
    `mechanisms` are all of the study and whether each is private, so that each looks the same in
    every figure; without, a table is asked. The same input gives the same bytes.
    """
    from dpmedbench.figures import style

    info = _info(name)
    if lacking := [need for need in info.needs if need not in inputs]:
        raise UserError(f"figure {name}: found no {lacking[0]}, expected what its NEEDS name")
    given = {need: _given(need, inputs[need], dataset, mechanisms) for need in info.needs}
    texts = [output for output in map(Path, outputs) if output.suffix in (".txt", ".rst")]
    words = " ".join(f"{caption} {numbers(name, **given)}".split()) if texts else ""
    for output in texts:
        text = rst.escape(words) if output.suffix == ".rst" else words
        with replacing(output) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    figure = draw(name, **given)
    with style.theme():  # laid out once for all files: it takes most of the time
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for output in outputs:
        if Path(output) not in texts:
            save(figure, output)


def _given(
    need: str, value: object, dataset: str | None, mechanisms: Mapping[str, bool] | None
) -> object:
    """What `draw` gets for a need."""
    if need in TABLES:
        return load(value, dataset, mechanisms)
    return _masks_of(dataset, value) if need == "masks" else value


def load(
    path: str | Path, dataset: str | None, mechanisms: Mapping[str, bool] | None = None
) -> pd.DataFrame:
    """The rows of `dataset` (None: all) in a table, as a figure expects them.

    `attrs["dataset"]` is the dataset's name and `attrs["colours"]` the colour of each of
    `mechanisms` (whether it is private, by name; None: those of the whole table).
    """
    import pyarrow.parquet as pq

    from dpmedbench import tables
    from dpmedbench.figures import palette

    columns = pq.read_schema(path).names
    if mechanisms is None and {"mechanism", "privacy"} <= set(columns):
        mechanisms = palette.private_mechanisms(tables.read(path, ["mechanism", "privacy"]))
    frame = tables.read(path, dataset=dataset if "dataset" in columns else None)
    if dataset is not None:
        frame.attrs["dataset"] = dataset
    if mechanisms is not None:
        frame.attrs["colours"] = palette.assign(mechanisms)
    return frame


def save(figure: Figure, output: str | Path) -> None:
    """Save as the suffix says, whole or not at all, without dates or random names."""
    from dpmedbench.figures import style

    output = Path(output)
    if output.suffix not in FORMATS:
        raise UserError(f"{output}: found suffix '{output.suffix}', expected {', '.join(FORMATS)}")
    undated = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}
    with style.theme(), replacing(output) as temporary:
        figure.savefig(
            temporary, format=output.suffix[1:], dpi=DPI, metadata=undated[output.suffix]
        )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _info(name: str) -> FigureInfo:
    if name not in catalog():
        raise UserError(f"figures: found '{name}', expected one of {', '.join(catalog())}")
    return catalog()[name]


def _masks_of(dataset: str | None, paths: Sequence[Path]) -> list[tuple[dict[str, object], Path]]:
    import h5py

    from dpmedbench.results import CELL

    found = []
    for path in paths:
        try:
            with h5py.File(path) as file:
                identity = {name: file.attrs[name] for name in CELL}
        except (OSError, KeyError) as error:
            raise UserError(
                f"{path}: found what cannot be read ({error}), expected the predicted masks of a "
                "cell; delete the cell's folder and run the workflow again"
            ) from error
        if dataset in (None, identity["dataset"]):
            found.append((identity, Path(path)))
    return found
