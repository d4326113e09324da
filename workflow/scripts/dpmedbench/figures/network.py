"""The networks

The networks on {dataset}, drawn from the models themselves while they ran on one image of
{image_size} pixels: {models}. A box is what a block hands on, its channels above its rows x
columns, and lies the lower the smaller its maps are. A block reads what its arrows bring, the maps
of several put together. What each block is made of stands in the table of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from dpmedbench.figures import blocks, style, tiles
from dpmedbench.figures.network_layers import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDER = 12
NEEDS = ("networks",)
PUBLISHED = {"bookkeeping": "Figure 4"}

BOX, HEIGHT, PITCH, GAP, TRACK = 0.46, 0.3, 0.64, 0.2, 0.07  # inches
HEAD = 0.32
PLAIN, RESIDUAL, HEADS, IMAGE = "#dbe9f6", "#fde3c8", "#d9f0d3", "#ffffff"
SAME, SMALLER, LARGER = "#6b6b6b", "#d55e00", "#0072b2"
Place = dict[str, tuple[float, float]]


def draw(networks: Sequence[str | Path]) -> Figure:
    """A diagram a network, one below the other."""
    found = [blocks.read(path) for path in networks]
    entries = dict.fromkeys(entry for network in found for entry in _entries(network))
    entries = sorted(entries, key=lambda entry: entry[0], reverse=True)  # boxes, then arrows
    handles = [_handle(*entry) for entry in entries]
    heights = [HEAD + sum(_pitch(one, level) for level in _levels(one)) for one in found]
    total = sum(heights) + tiles.legend_height(handles, style.DOUBLE)
    figure = Figure(figsize=(style.DOUBLE, total))
    top = total
    for network, height in zip(found, heights, strict=True):
        axes = figure.add_axes((0, (top - height) / total, 1, height / total))
        axes.set(xlim=(0, style.DOUBLE), ylim=(-height, 0))
        axes.axis("off")
        axes.text(0.08, -0.06, heading(network), va="top", weight="bold", fontsize=8)
        _diagram(axes, network)
        top -= height
    tiles.legend(figure, handles)
    return figure


def numbers(networks: Sequence[str | Path]) -> str:
    """The sizes of the networks."""
    return "; ".join(heading(blocks.read(path)) for path in networks) + "."


def _diagram(axes: Axes, network: blocks.Network) -> None:
    places = _places(network)
    width = min(BOX, 0.72 * style.DOUBLE / (1 + max(network.column.values())))
    boxes = {}
    for name, (x, y) in places.items():
        boxes[name] = FancyBboxPatch(
            (x - width / 2, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=_fill(network, name),
            edgecolor=style.MUTED,
            linewidth=0.6,
            zorder=3,
        )
        axes.add_patch(boxes[name])
        shape = network.shape(name)
        side = blocks.size(shape)
        axes.text(
            x, y + (0.045 if side else 0), f"{shape[0]}", ha="center", va="center",
            fontsize=style.SMALL, weight="bold", zorder=4,
        )  # fmt: skip
        axes.text(
            x, y - 0.075, side, ha="center", va="center", fontsize=min(5, 11 * width), zorder=4
        )  # fmt: skip
    tracks = _tracks(network)
    for block in network.blocks:
        for source in block.inputs:
            if (source, block.name) not in tracks:
                axes.add_patch(
                    FancyArrowPatch(
                        places[source],
                        places[block.name],
                        patchA=boxes[source],
                        patchB=boxes[block.name],
                        arrowstyle="-|>,head_length=3,head_width=1.6",
                        color=_arrow(network, source, block)[0],
                        linewidth=0.9,
                        shrinkA=0,
                        shrinkB=0,
                        zorder=2,
                    )
                )
    for (source, target), rank in tracks.items():
        _over(axes, places[source], places[target], rank, width)


def _over(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], rank: int, width: float
) -> None:
    """A line over the boxes between `start` and `end`, on track `rank`."""
    (x, y), (to, _) = start, end
    x += width * (0.32 - 0.12 * rank)
    to -= width * (0.32 - 0.12 * rank)
    over = y + HEIGHT / 2 + TRACK * (1 + rank)
    axes.plot([x, x, to], [y + HEIGHT / 2, over, over], color=SAME, linewidth=0.7, zorder=1.5)
    axes.annotate(
        "",
        (to, y + HEIGHT / 2),
        (to, over),
        arrowprops={
            "arrowstyle": "-|>,head_length=0.3,head_width=0.16",
            "color": SAME,
            "linewidth": 0.7,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )


def _places(network: blocks.Network) -> Place:
    """The middle of each box, inches from the upper left corner of the diagram."""
    columns = 1 + max(network.column.values())
    pitch = min(PITCH, (style.DOUBLE - 0.1) / columns)
    left = (style.DOUBLE - pitch * (columns - 1)) / 2
    tops = {}
    top = -HEAD
    for level in _levels(network):
        top -= _pitch(network, level)
        tops[level] = top + GAP + HEIGHT / 2 - GAP / 2
    return {
        name: (left + pitch * column, tops[network.level(name)])
        for name, column in network.column.items()
    }


def _levels(network: blocks.Network) -> list[int]:
    return sorted({network.level(name) for name in network.column})


def _pitch(network: blocks.Network, level: int) -> float:
    """Height of a level: its boxes and the lines above them."""
    ranks = [r for (source, _), r in _tracks(network).items() if network.level(source) == level]
    return HEIGHT + GAP + TRACK * (1 + max(ranks) if ranks else 0)


def _tracks(network: blocks.Network) -> dict[tuple[str, str], int]:
    """Lines that pass over boxes of their level: (source, target) to a track, 0 the lowest; one
    track a source, the outer the farther it starts to the left."""
    passing: dict[str, list[str]] = {}
    for block in network.blocks:
        for source in block.inputs:
            between = range(network.column[source] + 1, network.column[block.name])
            level = network.level(source)
            if level == network.level(block.name) and any(
                network.column[name] in between and network.level(name) == level
                for name in network.column
            ):
                passing.setdefault(source, []).append(block.name)
    tracks = {}
    for level in _levels(network):
        sources = [name for name in passing if network.level(name) == level]
        sources.sort(key=lambda name: -network.column[name])
        for rank, source in enumerate(sources):
            tracks |= {(source, target): rank for target in passing[source]}
    return tracks


def _fill(network: blocks.Network, name: str) -> str:
    if name == blocks.INPUT:
        return IMAGE
    if name in network.outputs:
        return HEADS
    return RESIDUAL if network.block[name].residual else PLAIN


def _arrow(network: blocks.Network, source: str, block: blocks.Block) -> tuple[str, str]:
    """Colour and meaning of an arrow."""
    step = network.level(block.name) - network.level(source)
    if step > 0:
        if not block.output[1:]:
            return SMALLER, "mean over the map"
        return SMALLER, "max pooling" if block.uses("MaxPool") else "stride of 2"
    if step < 0:
        return LARGER, "upsampling" if block.uses("Upsample") else "larger"
    return SAME, "same size"


def _entries(network: blocks.Network) -> Iterator[tuple[str, str, str]]:
    """What the legend says of a network: kind, colour, label."""
    yield "box", IMAGE, "image"
    for block in network.blocks:
        if block.name in network.outputs:
            yield "box", HEADS, "logits"
        elif block.residual:
            yield "box", RESIDUAL, "residual block"
        else:
            yield "box", PLAIN, "block"
    for block in network.blocks:
        for source in block.inputs:
            yield ("arrow", *_arrow(network, source, block))


def _handle(kind: str, colour: str, label: str) -> Patch | Line2D:
    if kind == "box":
        return Patch(facecolor=colour, edgecolor=style.MUTED, linewidth=0.6, label=label)
    return Line2D([], [], color=colour, linewidth=1.2, label=label)
