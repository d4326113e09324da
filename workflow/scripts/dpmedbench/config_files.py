"""The files made from the configuration models: comments, schema and key table.

python -m dpmedbench.config_files          write them
python -m dpmedbench.config_files --check  fail where one differs from what would be written
"""

from __future__ import annotations

import json
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dpmedbench import generated, support
from dpmedbench.config import Study
from dpmedbench.config import load as load_study
from dpmedbench.generated import between_marks

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "config" / "config.yaml"
README = ROOT / "config" / "README.md"
ENGINES = ROOT / "docs" / "engines.md"
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"
WIDTH = 96


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return {
        CONFIG: commented(load_study(values)),
        SCHEMA: json.dumps(Study.model_json_schema(), indent=2) + "\n",
        README: between_marks(README.read_text("utf-8"), "make config", key_table()),
        ENGINES: between_marks(
            ENGINES.read_text("utf-8"), "make config", "\n".join(["", *support.table(), "", ""])
        ),
    }


def commented(study: Study) -> str:
    """The study as YAML: every key once, under its sentence, and again where it is no default."""
    return "\n".join(
        [
            "# yaml-language-server: $schema=../workflow/schemas/config.schema.json",
            "# The default study: phantoms, small enough for a laptop, every stage shown.",
            "# Each key is explained where it first stands and in config/README.md; after that",
            "# what is left out has its default. Lines with # are made from the models in",
            "# workflow/scripts/dpmedbench/config: `make config` renews them.",
            *_section(study, 0, frozenset()),
            "",
        ]
    )


def _section(section: BaseModel, depth: int, told: frozenset) -> Iterator[str]:
    """Lines of a section; a key explained before (`told`) is not explained again."""
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if (type(section), name) in told and _is_default(field, value):
            continue
        if depth == 0:
            yield ""
        if (type(section), name) not in told:
            yield from _comment(field.description, indent)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _section(value, depth + 1, told)
        elif _holds_sections(value):
            yield f"{indent}{name}:"
            told_here = told
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            for key, entry in entries:
                lines = list(_section(entry, depth + 2, told_here))
                if isinstance(value, dict):
                    yield f"{indent}  {key}:"
                    yield from lines
                else:
                    first = next(i for i, line in enumerate(lines) if not _is_comment(line))
                    yield from (line[2:] for line in lines[:first])
                    yield f"{indent}  - {lines[first].lstrip()}"
                    yield from lines[first + 1 :]
                told_here = told_here | _keys(type(entry))
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _is_default(field: FieldInfo, value: object) -> bool:
    return not field.is_required() and value == field.default


def _keys(section: type[BaseModel]) -> frozenset:
    """All keys of a section and of the sections in it."""
    found = {(section, name) for name in section.model_fields}
    for field in section.model_fields.values():
        for inner in _sections(field.annotation):
            found |= _keys(inner)
    return frozenset(found)


def _comment(text: str | None, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text or "", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _holds_sections(value: object) -> bool:
    entries = list(value.values()) if isinstance(value, dict) else value
    return isinstance(entries, list) and any(isinstance(entry, BaseModel) for entry in entries)


def _scalar(value: object) -> str:
    """A value in YAML's flow style, on one line."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, float) and 0 < value < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa)}e{int(exponent)}"  # YAML 1.1 reads 1e-05 as a string
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").rstrip("\n")


def key_table() -> str:
    """A Markdown table of every key: type, default, sentence."""
    lines = ["", "| key | values | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{key}` | {_kind(field.annotation)} | {_default(field)} | {field.description} |"
        for key, field in _walk(Study, "")
    ]
    return "\n".join([*lines, "", ""])


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = _sections(field.annotation)
        yield prefix + name, field
        if inner:
            origin = typing.get_origin(field.annotation)
            part = {dict: ".<name>.", list: "[]."}.get(origin, ".")
            yield from _walk(inner[0], prefix + name + part)


def _sections(kind: object) -> list[type[BaseModel]]:
    """Sections that an annotation holds."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [found for part in typing.get_args(kind) for found in _sections(part)]


def _kind(kind: object) -> str:
    """An annotation in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if _sections(kind):
        return "section" if origin not in (dict, list) else "sections"
    if origin is typing.Literal:
        return " \\| ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return _kind(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part) for part in parts)
    if origin is list:
        return f"list of {_kind(parts[0])}"
    if origin is dict:
        return f"names to {_kind(parts[1])}"
    if origin is tuple:
        return f"{len(parts)} x {_kind(parts[0])}"
    return {type(None): "null", bool: "boolean", str: "text", int: "integer", float: "number"}[kind]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    return f"`{_scalar(field.default)}`"


if __name__ == "__main__":
    sys.exit(generated.main(files, ROOT, "config"))
