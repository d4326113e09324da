"""What each engine can do: read off the registry that the configuration is checked against."""

from __future__ import annotations

from dpmedbench import mechanisms


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
