"""What can be trained with what: read off the registries of engines and networks.

The configuration refuses what no engine can do; a cell whose network is for another task than its
dataset, or whose engine is not installed, is left out of the study and named with the reason.
"""

from __future__ import annotations

from dpmedbench import mechanisms, models


def reason(task: str, network: str, engine: str) -> str | None:
    """Why a cell is left out, None where it is trained.

    Args:
        task: of the dataset, "segmentation" or "classification".
        network: a module of `models`.
        engine: a module of `mechanisms`.
    """
    if models.task(network) != task:
        return f"network {network} is for {models.task(network)}, the dataset for {task}"
    return mechanisms.missing(engine)


def table() -> list[str]:
    """Every engine and mode, what it clips and how, as lines of a Markdown table."""
    ways = [(f, "flat") for f in ("abadi", "automatic", "adaptive")]
    ways += [(f, "per_layer") for f in ("abadi", "automatic")]
    head = ["engine", "mode", *(f"{f}, {style}" for f, style in ways), "random sparsification"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for engine in mechanisms.names():
        able = mechanisms.capabilities(engine)
        if not able.private:
            continue
        for name, mode in able.modes.items():
            marks = [way in mode.combinations for way in ways] + [mode.sparsification]
            cells = [f"`{engine}`", f"`{name}`", *("yes" if mark else "-" for mark in marks)]
            lines.append("| " + " | ".join(cells) + " |")
    return lines
