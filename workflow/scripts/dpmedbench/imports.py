"""What a script or a module imports, read off its text: for a step's digest and its packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]


def file(module: str) -> Path | None:
    """The file of a script or of a module of dpmedbench, None for any other name."""
    path = SCRIPTS.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


def named(node: ast.AST) -> list[str]:
    """What a statement may import: `from a import b` the module `a`, then `a.b` if that is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def needed(tree: ast.Module, within: bool) -> Iterator[str]:
    """Every module that is imported to run, with the packages it lies in; those of plug-ins too.

    What is imported for type checking is not; what is imported `within` a function is on demand.
    """
    for node in _nodes(tree, within):
        names, passed = named(node), None
        if isinstance(node, ast.ImportFrom):
            modules = [name for name in names[1:] if file(name)]
            if len(modules) == len(names[1:]):
                passed = node.module  # on the way to its modules; nothing of its own is used
            names = [*modules, *names[:1]]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
            if within and name != passed:
                yield from _plugins(name)


def _plugins(module: str) -> Iterator[str]:
    """The modules of a package of dpmedbench that finds them by name."""
    path = file(module)
    if path and path.name == "__init__.py" and "import_module" in path.read_text(encoding="utf-8"):
        yield from (f"{module}.{other.stem}" for other in path.parent.glob("[!_]*.py"))


def _nodes(tree: ast.AST, within: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        if within or not isinstance(node, ast.FunctionDef):
            yield from _nodes(node, within)
