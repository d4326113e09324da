"""What can be trained with what: read off the registries of engines and networks.

The configuration refuses what no engine can do; a cell whose network is for another task than its
dataset, or whose engine is not installed, is left out of the study and named with the reason.
"""

from __future__ import annotations

from dpmedbench import mechanisms, models


def reason(task: str, network: str, engine: str, deployed: bool = False) -> str | None:
    """Why a cell is left out, None where it is trained.

    Args:
        task: of the dataset, "segmentation" or "classification".
        network: a module of `models`.
        engine: a module of `mechanisms`.
        deployed: whether the job runs in an environment of its own, which has its engine.
    """
    if models.task(network) != task:
        return f"network {network} is for {models.task(network)}, the dataset for {task}"
    return None if deployed else mechanisms.missing(engine)


def rows() -> list[dict[str, object]]:
    """What each mode of each private engine can do.

    Keys: engine, mode, and for each pair of clipping and style, and for "random sparsification",
    whether it can.
    """
    ways = mechanisms.FLAT + mechanisms.PER_LAYER
    return [
        {"engine": engine, "mode": name}
        | {f"{way[0]}, {way[1]}": way in mode.combinations for way in ways}
        | {"random sparsification": mode.sparsification}
        for engine in mechanisms.names()
        if (able := mechanisms.capabilities(engine)).private
        for name, mode in able.modes.items()
    ]


def table() -> list[str]:
    """The `rows` as lines of a Markdown table."""
    found = rows()
    lines = ["| " + " | ".join(found[0]) + " |", "|" + "---|" * len(found[0])]
    for row in found:
        engine, mode, *marks = row.values()
        cells = [f"`{engine}`", f"`{mode}`", *("yes" if mark else "-" for mark in marks)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
