"""The layers of the networks

What each block of {models} on {dataset} ({image_size} pixels) is made of, as recorded while the
network ran on one image: the blocks it takes its maps from, its layers, the shape that it hands on
(channels x rows x columns) and its trained parameters. "conv 3 × 3 / 2" has stride 2. Per-layer
clipping has a threshold for each of the tensors of parameters that the headings count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench.figures import blocks, text_table, wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDER = 13
NEEDS = ("networks",)
PUBLISHED = {"bookkeeping": "Figure 4 (its layers)"}

WIDTHS = (0.65, 1.4, 3.25, 1.1, 0.75)  # inches
HEADS = ("Block", "From", "Layers", "Output", "Parameters")


def draw(networks: Sequence[str | Path]) -> Figure:
    """A table: a heading a network, a row a block."""
    rows: list[tuple[str, ...]] = []
    for network in map(blocks.read, networks):
        rows.append((heading(network),))
        rows += [
            (
                block.name,
                ", ".join(block.inputs),
                block.made_of,
                " × ".join(map(str, block.output)),
                f"{block.parameters:,}",
            )
            for block in network.blocks
        ]
    return text_table.figure(HEADS, rows, WIDTHS)[0]


def heading(network: blocks.Network) -> str:
    """Name and size of a network."""
    return (
        f"{wording.name(network.model)}: {blocks.millions(network.parameters)} parameters in "
        f"{network.tensors} tensors"
    )
