"""What the module of a figure says of itself, read without importing it."""

from __future__ import annotations

import ast
import inspect
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpmedbench.errors import UserError

TABLES = ("history", "scores", "cost", "privacy", "summary", "comparisons", "claims")
FILES = ("store", "perturbed", "masks", "networks", "benchmark")
VALUES = ("left_out", "missing", "support", "real")
INPUTS = (*TABLES, *FILES, *VALUES)
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
SCOPES = ("dataset", "study")
STUDIES = {
    "bookkeeping": "Privacy and Performance: Biomedical Image Segmentation",
    "local_dp": "Benchmarking Differentially Private Residual Networks for Medical Imagery",
    "clipping": "Balancing Privacy and Performance: Gradient Clipping in DP-SGD",
    "engines": "Efficient DP-SGD: Opacus, FastGradClip, GhostClip and Book-Keeping",
}
BEYOND = "Beyond the published studies"
KINDS = {
    "ORDER": int,
    "NEEDS": tuple,
    "TASK": str,
    "SCOPE": str,
    "PUBLISHED": dict,
}
DEFAULTS = {"TASK": None, "SCOPE": "dataset", "PUBLISHED": {}}


@dataclass(frozen=True)
class FigureInfo:
    """What a figure says of itself."""

    name: str
    title: str
    caption: str
    order: int
    needs: tuple[str, ...]
    task: str | None
    scope: str
    published: Mapping[str, str]

    def caption_with(self, values: Mapping[str, object]) -> str:
        """The caption with the fields it uses filled from `values` (keys: `FIELDS`)."""
        return self.caption.format_map(values)

    def published_in(self, study: str) -> str | None:
        """The published study it belongs to: `study` if that is one of its own, else its first."""
        return study if study in self.published else next(iter(self.published), None)


def describe(path: Path) -> FigureInfo | None:
    """The figure that a module is, or None where it has no `draw`.

    Raises UserError naming the module and what it lacks, or what is not allowed in it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "draw" not in functions or path.stem == "__init__":
        return None
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    title, _, caption = (ast.get_docstring(tree) or "").partition("\n")
    values = {name: _literal(path, constants, name, kind) for name, kind in KINDS.items()}
    needs = values["NEEDS"]
    for name, found, allowed in (
        ("TASK", [values["TASK"]], (None, *TASKS)),
        ("SCOPE", [values["SCOPE"]], SCOPES),
        ("PUBLISHED", values["PUBLISHED"], STUDIES),
        ("NEEDS", needs, INPUTS),
        ("caption fields", _fields(caption), FIELDS),
    ):
        if unknown := sorted(set(found) - set(allowed)):
            names = ", ".join(name for name in allowed if name)
            raise UserError(f"figures/{path.name}: found {name} {unknown}, allowed are {names}")
    if _arguments(functions["draw"]) != set(needs):
        raise UserError(
            f"figures/{path.name}: found draw({', '.join(sorted(_arguments(functions['draw'])))}), "
            f"expected the arguments that NEEDS names: {', '.join(needs)}"
        )
    if "numbers" in functions and (odd := _arguments(functions["numbers"]) - set(needs)):
        raise UserError(
            f"figures/{path.name}: found numbers({', '.join(sorted(odd))}), expected arguments "
            f"that NEEDS names: {', '.join(needs)}"
        )
    if not title or not caption.strip():
        raise UserError(
            f"figures/{path.name}: found no title and caption, expected a docstring with a title "
            "line and a caption below it"
        )
    return FigureInfo(
        name=path.stem,
        title=title.strip().rstrip("."),
        caption=inspect.cleandoc(caption),
        **{name.lower(): value for name, value in values.items()},
    )


def _literal(path: Path, constants: Mapping[str, ast.expr], name: str, kind: type) -> object:
    """The value of a constant, of type `kind`, or its default where it has one."""
    if name not in constants and name in DEFAULTS:
        return DEFAULTS[name]
    try:
        value = ast.literal_eval(constants[name])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, kind):
        raise UserError(
            f"figures/{path.name}: found no constant {name}, expected a literal {kind.__name__}; "
            "add it below the docstring"
        )
    return value


def _arguments(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in function.args.args + function.args.kwonlyargs}


def _fields(caption: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(caption) if field is not None}
