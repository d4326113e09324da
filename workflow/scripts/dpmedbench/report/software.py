"""What the cells of a study were trained with, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

# what of a manifest's versions changes results: in every cell, in private ones, and of an engine
ALWAYS = {"python": "Python", "torch": "torch"}
PRIVATE = {"opacus": "Opacus"}  # accounts for all of them
OF_ENGINE = {"fastdp": {"fastDP": "fastDP"}}
UNKNOWN = "unknown"
COMMIT, DEVICE = "commit", "on"


def of_cells(manifests: Sequence[Mapping]) -> dict[str, object]:
    """What stands in the manifests of all cells.

    Keys: `words`, such as "Python 3.11.7, torch 2.13.0, Opacus 1.6.0, commit 1a2b3c4, on AMD EPYC,
    2 threads"; where cells differ in one of them, each with its number of cells. `mixed`, in which
    they differ.
    """
    found: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for name, value in _facts(manifest):
            found.setdefault(name, Counter())[value] += 1
    order = [*ALWAYS.values(), *PRIVATE.values(), *OF_ENGINE["fastdp"].values(), COMMIT, DEVICE]
    names = [name for name in order if name in found]
    return {
        "words": ", ".join(f"{name} {_values(found[name])}" for name in names),
        "mixed": ["device" if name == DEVICE else name for name in names if len(found[name]) > 1],
    }


def _facts(manifest: Mapping) -> Iterator[tuple[str, str]]:
    """What of a cell is told, as (name, value)."""
    identity, versions = manifest["settings"]["identity"], manifest["versions"]
    private = PRIVATE if identity["privacy"].startswith(("sigma", "eps")) else {}
    for package, name in (ALWAYS | private | OF_ENGINE.get(identity["engine"], {})).items():
        yield name, versions.get(package, UNKNOWN)
    yield COMMIT, _short(manifest["commit"])
    yield DEVICE, manifest["device"]


def _short(commit: str | None) -> str:
    """ "1a2b3c4", or "1a2b3c4-dirty" where files differed."""
    hexadecimal, _, dirty = (commit or UNKNOWN).partition("-")
    return hexadecimal[:7] + f"-{dirty}" * bool(dirty)


def _values(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{value} ({_cells(n)})" for value, n in counts.most_common())


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number > 1)}"
