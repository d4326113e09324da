"""The figures: one module a figure, found by reading it, drawn from the collected tables.

A figure is a module of this package with a function `draw`. Its docstring is its title (first
line) and its caption (the rest, with fields of `FIELDS` filled from the configuration of the
study). Its constants are `CATEGORY` (a heading of the report), `ORDER` (its place there) and
`NEEDS`, the keyword arguments of `draw`, from `INPUTS`, and `TASK`, "segmentation" or
"classification", where it is not for datasets of both:

- history, scores, cost, privacy: the collected table as a DataFrame, rows of one dataset only;
- store: path of the dataset's HDF5;
- perturbed: paths of its HDF5 with noise (`perturbation`); such a figure is only for studies with
  local mechanisms;
- masks: [(identity, path of masks.h5), ...] of the dataset's cells, where identity has `CELL`.

`draw` returns a `matplotlib.figure.Figure`. Modules without `draw` are what figures share, and
`scans`, the picture of one cell. Nothing here imports matplotlib before a figure is
drawn, and nothing ever imports torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TABLES = ("history", "scores", "cost", "privacy")
INPUTS = (*TABLES, "store", "perturbed", "masks")
FIELDS = (
    "study",
    "dataset",
    "models",
    "mechanisms",
    "noise",
    "delta",
    "accountant",
    "epochs",
    "batch_size",
    "learning_rate",
    "image_size",
    "unit",
)
TASKS = ("segmentation", "classification")
CELL = ("study", "dataset", "model", "mechanism", "privacy", "fold", "seed")
FORMATS = (".svg", ".png", ".pdf")
DPI = 200


@dataclass(frozen=True)
class FigureInfo:
    """What a figure says of itself."""

    name: str
    title: str
    caption: str
    category: str
    order: int
    needs: tuple[str, ...]
    task: str | None

    @property
    def tables(self) -> tuple[str, ...]:
        """The collected tables among its needs."""
        return tuple(need for need in self.needs if need in TABLES)

    def caption_with(self, values: Mapping[str, object]) -> str:
        """The caption with the fields it uses filled from `values` (keys: `FIELDS`)."""
        return self.caption.format_map(values)


@functools.cache
def catalog() -> dict[str, FigureInfo]:
    """Every figure by name, in the order of `ORDER`.

    Modules are parsed, not imported. Raises UserError naming the module and what it lacks.
    """
    paths = sorted(Path(__file__).parent.glob("*.py"))
    found = [info for path in paths if (info := _describe(path)) is not None]
    return {info.name: info for info in sorted(found, key=lambda info: (info.order, info.name))}


def draw(name: str, **inputs: object) -> Figure:
    """Draw figure `name` from its inputs (its `NEEDS`), in the one style of all figures."""
    info = _info(name)
    from dpmedbench.figures import style

    with style.theme():
        module = importlib.import_module(f"{__name__}.{name}")
        return module.draw(**{need: inputs[need] for need in info.needs})


def render(
    name: str,
    dataset: str,
    tables: Mapping[str, Path],
    store: Path | None,
    masks: Sequence[Path],
    outputs: Sequence[Path],
    perturbed: Sequence[Path] = (),
) -> None:
    """Draw figure `name` for `dataset` and save it to each of `outputs` (.svg, .png, .pdf).

    `tables` are paths of collected tables by kind and `masks` paths of cells' masks.h5; of both,
    only what belongs to `dataset` is drawn, but colours are given out over all of it, so that a
    mechanism looks the same everywhere. What a figure does not need may be left out. The same
    input gives the same bytes.
    """
    info = _info(name)
    inputs: dict[str, object] = {}
    for need in info.needs:
        if need in TABLES:
            if need not in tables:
                raise UserError(f"figure {name}: found no {need} table, expected its path")
            inputs[need] = load(tables[need], dataset)
        elif need == "store":
            if store is None:
                raise UserError(f"figure {name}: found no store, expected the path of its HDF5")
            inputs[need] = store
        elif need == "perturbed":
            inputs[need] = perturbed
        else:
            inputs[need] = _masks_of(dataset, masks)
    figure = draw(name, **inputs)
    for output in outputs:
        save(figure, output)


def load(path: str | Path, dataset: str) -> pd.DataFrame:
    """The rows of `dataset` in a collected table, as a figure expects them.

    `attrs["dataset"]` is the dataset's name and `attrs["colours"]` the colour of each mechanism
    of the whole table.
    """
    from dpmedbench import tables
    from dpmedbench.figures import style

    colours = style.assign(tables.read(path, ["mechanism", "privacy"]))
    frame = tables.read(path, dataset=dataset)
    frame.attrs.update(dataset=dataset, colours=colours)
    return frame


def save(figure: Figure, output: str | Path) -> None:
    """Save as the suffix says, whole or not at all, without dates or random names."""
    from dpmedbench.figures import style
    from dpmedbench.files import replacing

    output = Path(output)
    if output.suffix not in FORMATS:
        raise UserError(f"{output}: found suffix '{output.suffix}', expected {', '.join(FORMATS)}")
    undated = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}
    with style.theme(), replacing(output) as temporary:
        figure.savefig(
            temporary, format=output.suffix[1:], dpi=DPI, metadata=undated[output.suffix]
        )


def _info(name: str) -> FigureInfo:
    if name not in catalog():
        raise UserError(f"figures: found '{name}', expected one of {', '.join(catalog())}")
    return catalog()[name]


def _describe(path: Path) -> FigureInfo | None:
    """The figure that a module is, or None where it has no `draw`."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    draws = [function for function in functions if function.name == "draw"]
    if not draws or path.stem == "__init__":
        return None
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    title, _, caption = (ast.get_docstring(tree) or "").partition("\n")
    values: dict[str, object] = {}
    for constant, kind in {"CATEGORY": str, "ORDER": int, "NEEDS": tuple}.items():
        try:
            values[constant] = ast.literal_eval(constants[constant])
        except (KeyError, ValueError):
            values[constant] = None
        if not isinstance(values[constant], kind):
            raise UserError(
                f"figures/{path.name}: found no constant {constant}, expected a literal "
                f"{kind.__name__}; add it below the docstring"
            )
    task = ast.literal_eval(constants["TASK"]) if "TASK" in constants else None
    if task not in (None, *TASKS):
        raise UserError(f"figures/{path.name}: found TASK {task!r}, allowed are {', '.join(TASKS)}")
    needs = values["NEEDS"]
    arguments = {argument.arg for argument in draws[0].args.args + draws[0].args.kwonlyargs}
    if unknown := sorted(set(needs) - set(INPUTS)):
        raise UserError(
            f"figures/{path.name}: found NEEDS {unknown}, allowed are {', '.join(INPUTS)}"
        )
    if arguments != set(needs):
        raise UserError(
            f"figures/{path.name}: found draw({', '.join(sorted(arguments))}), expected the "
            f"arguments that NEEDS names: {', '.join(needs)}"
        )
    if not title or not caption.strip():
        raise UserError(
            f"figures/{path.name}: found no title and caption, expected a docstring with a title "
            "line and a caption below it"
        )
    fields = {field for _, field, _, _ in string.Formatter().parse(caption) if field is not None}
    if unknown := sorted(fields - set(FIELDS)):
        raise UserError(
            f"figures/{path.name}: found caption fields {unknown}, allowed are {', '.join(FIELDS)}"
        )
    return FigureInfo(
        name=path.stem,
        title=title.strip().rstrip("."),
        caption=inspect.cleandoc(caption),
        category=values["CATEGORY"],
        order=values["ORDER"],
        needs=needs,
        task=task,
    )


def _masks_of(dataset: str, paths: Sequence[Path]) -> list[tuple[dict[str, object], Path]]:
    import h5py

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
        if identity["dataset"] == dataset:
            found.append((identity, Path(path)))
    return found
