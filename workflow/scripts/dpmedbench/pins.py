"""The versions of every package, in one place: requirements.lock; what is made from it.

python -m dpmedbench.pins          write the lock, pyproject's versions and envs/*.yaml
python -m dpmedbench.pins --check  fail where one differs from what would be written

The lock has what pyproject.toml asks for and what that requires, as installed here. The
environment of a step has what its scripts import, followed through dpmedbench, and what that
requires.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dpmedbench import generated, imports
from dpmedbench.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "workflow" / "rules"
LOCK, PROJECT, ENVS = ROOT / "requirements.lock", ROOT / "pyproject.toml", ROOT / "envs"

# The interpreter and pip come from conda-forge, everything else as the wheels that are tested.
CONDA = ("python==3.11.14", "pip==26.0.1")
# What a step runs by name, or has loaded by another package.
COMMANDS = {"report": {"snakemake", "pygments"}}
# Modules of dpmedbench of which the scripts of an environment call nothing that imports more.
# That of the report reads the rules and calls nothing.
READ = {
    "figures": {
        "classification_metrics",
        "dpsgd",
        "mechanisms",
        "models",
        "pretrained",
        "privacy",
        "segmentation_metrics",
    },
    "preprocess": {"pretrained"},
}
# Of torch, in its build for CUDA, which names their versions itself.
CUDA = re.compile(r"cuda-|nvidia-|triton$")


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    versions = locked()
    return {
        LOCK: _lock(versions),
        PROJECT: re.sub(
            r'"([\w.-]+)==[^"]+"',
            lambda pin: f'"{_pin(pin[1], versions)}"' if _known(pin[1], versions) else pin[0],
            PROJECT.read_text(encoding="utf-8"),
        ),
        **{ENVS / f"{env}.yaml": _env(env, versions) for env in steps()},
    }


def locked() -> dict[str, str]:
    """The version of each package that pyproject asks for, and of what those require."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    asked = [project["dependencies"], *project["optional-dependencies"].values()]
    return {name: _version(name) for name in closure(_name(pin) for pins in asked for pin in pins)}


def own(env: str) -> list[str]:
    """Pins of an engine that has an environment of its own: pyproject's group of its name."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    return project["dependency-groups"].get(env.removeprefix("train_"), [])


def steps() -> dict[str, set[str]]:
    """The scripts that run in each environment, read off the rules."""
    found: dict[str, set[str]] = {}
    for path in sorted(RULES.glob("*.smk")):
        for rule in re.split(r"^(?=(?:use )?rule )", path.read_text(encoding="utf-8"), flags=re.M):
            for env in re.findall(r"envs/(\w+)\.yaml", rule):
                found.setdefault(env, set()).update(re.findall(r"scripts/(\w+\.py)", rule))
    return found


def modules(env: str) -> tuple[set[str], set[str]]:
    """Modules of dpmedbench that the steps of an environment import, and those of others.

    Not only directly. What is imported within a function counts, except in `READ`; what is
    imported for type checking does not. A package that finds its modules by name counts whole
    where it is itself what is imported.
    """
    pending, ours, others = [("", program(env))], set(), set()
    while pending:
        module, tree = pending.pop()
        read = env == "report" or module.partition(".")[2].partition(".")[0] in READ.get(env, ())
        for name in set(imports.needed(tree, not read)) - ours:
            if name.partition(".")[0] != "dpmedbench":
                others.add(name.partition(".")[0])
            elif file := imports.file(name):
                ours.add(name)
                pending.append((name, ast.parse(file.read_bytes())))
            else:
                raise UserError(f"{module or env}: found an import of {name}, which is nowhere")
    return ours, others - sys.stdlib_module_names


def program(env: str) -> ast.Module:
    """What runs in an environment: its scripts; the imports of the rules where Snakemake does."""
    text = [(imports.SCRIPTS / script).read_text("utf-8") for script in sorted(steps()[env])]
    if "snakemake" in COMMANDS.get(env, ()):
        for path in RULES.glob("*.smk"):
            statement = r"^(?:from|import) (?:[^(\n]*\([^)]*\)|.*)"
            text += re.findall(statement, path.read_text("utf-8"), re.M)
    return ast.parse("\n".join(text))


def needs(env: str, versions: dict[str, str]) -> set[str]:
    """The distributions that the steps of an environment import or run, less its own pins.

    Raises:
        UserError: where pyproject.toml asks for nothing that provides a module.
    """
    names = COMMANDS.get(env, set()) | {_distribution(module) for module in modules(env)[1]}
    separate = {_name(pin) for pin in own("train_fastdp")} - versions.keys()
    found = {canonicalize_name(name) for name in names} - separate
    if stray := found - versions.keys():
        raise UserError(
            f"envs/{env}.yaml: found a step that imports {', '.join(sorted(stray))}, which "
            "pyproject.toml does not ask for; add it there and run `make pins` again"
        )
    return found


def closure(names: Iterable[str]) -> set[str]:
    """Distributions and, of those installed here, all that they require."""
    pending = [(name, "") for name in names]
    found: set[tuple[str, str]] = set()
    while pending:
        name, extra = pending.pop()
        name = canonicalize_name(name)
        if (name, extra) in found or CUDA.match(name):
            continue
        found.add((name, extra))
        for required in _requires(name):
            if required.marker is None or required.marker.evaluate({"extra": extra}):
                pending += [(required.name, which) for which in ("", *required.extras)]
    return {name for name, _ in found}


@cache
def _requires(name: str) -> list[Requirement]:
    return [Requirement(line) for line in metadata.requires(name) or ()]


@cache
def _providers() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _distribution(module: str) -> str:
    """What provides a module; where nothing does, what has its name."""
    return _providers().get(module, [module])[0]


def _name(pin: str) -> str:
    return canonicalize_name(Requirement(pin).name)


def _version(name: str) -> str:
    return metadata.version(name).partition("+")[0]  # without the build of torch


def _known(name: str, versions: dict[str, str]) -> bool:
    return canonicalize_name(name) in versions


def _pin(name: str, versions: dict[str, str]) -> str:
    return f"{name}=={versions[canonicalize_name(name)]}"


def _lock(versions: dict[str, str]) -> str:
    title = "# Every package of the project at its version, the one place for them: `make pins`."
    return "\n".join([title, *(_pin(name, versions) for name in sorted(versions)), ""])


def _env(env: str, versions: dict[str, str]) -> str:
    direct = needs(env, versions)
    required = closure(direct) - direct
    separate = [pin for pin in own(env) if _name(pin) not in required]
    return "\n".join(
        [
            "# Made by `make pins` from what the steps import.",
            "channels:",
            "  - conda-forge",
            "  - nodefaults",
            "dependencies:",
            *(f"  - {pin}" for pin in CONDA),
            "  - pip:",
            *(f"      - {_pin(name, versions)}" for name in sorted(direct)),
            *(f"      - {pin}" for pin in separate),
            "      # required by those",
            *(f"      - {_pin(name, versions)}" for name in sorted(required)),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(generated.main(files, ROOT, "pins"))
