"""The blocks of a network as its description has them, in words and in places."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INPUT = "input"
WORDS = {"GroupNorm": "group norm", "FrozenBatchNorm": "fixed batch norm", "ReLU": "ReLU"}
SILENT = ("Dropout", "Identity")


@dataclass
class Block:
    """What one part of a network makes: shapes (C, H, W) or (C,), without the batch."""

    name: str
    inputs: list[str]
    output: list[int]
    parameters: int
    additions: int = 0
    layers: list[dict] = field(default_factory=list)

    @property
    def residual(self) -> bool:
        """Whether its input is added to what its layers make."""
        return self.additions > 0

    def uses(self, kind: str) -> bool:
        """Whether a layer's kind begins with `kind`."""
        return any(layer["kind"].startswith(kind) for layer in self.layers)

    @property
    def made_of(self) -> str:
        """Its layers in words, those that are repeated counted."""
        units = _counted([word for layer in self.layers if (word := _word(layer))])
        return ", ".join(units) + (", input added" if self.residual else "")


@dataclass
class Network:
    """A network: its blocks in the order they run, after the input."""

    model: str
    input: list[int]
    parameters: int
    tensors: int
    outputs: list[str]
    blocks: list[Block]

    def __post_init__(self) -> None:
        self.block = {block.name: block for block in self.blocks}
        self.column = {INPUT: 0}
        for block in self.blocks:
            self.column[block.name] = 1 + max(self.column[name] for name in block.inputs)

    def level(self, name: str) -> int:
        """How many times the sides of the input are halved; one more where no side is left."""
        sizes = [self.shape(name)[1:] for name in (INPUT, *self.block)]
        smallest = min(min(size) for size in sizes if size)
        size = self.shape(name)[1:]
        return round(math.log2(self.input[-1] / (size[-1] if size else smallest / 2)))

    def shape(self, name: str) -> list[int]:
        """Shape of what a block, or the input, hands on."""
        return self.input if name == INPUT else self.block[name].output


def read(path: str | Path) -> Network:
    """Read a description that `architecture` wrote; a layer that changes no shape joins the block
    before it where that has no other reader."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    blocks: dict[str, Block] = {}
    renamed: dict[str, str] = {}
    entries = [Block(**entry) for entry in found["blocks"]]
    readers = [name for entry in entries for name in entry.inputs] + found["outputs"]
    for entry in entries:
        first = entry.inputs[0]
        entry.inputs = [renamed.get(name, name) for name in entry.inputs]
        before = blocks.get(entry.inputs[0])
        alone = len(entry.inputs) == 1 and readers.count(first) == 1 and before is not None
        if alone and before.output == entry.output and _word(entry.layers[0]) in WORDS.values():
            before.layers += entry.layers
            before.parameters += entry.parameters
            renamed[entry.name] = before.name
        else:
            blocks[entry.name] = entry
    return Network(
        **{key: found[key] for key in ("model", "input", "parameters", "tensors")},
        outputs=[renamed.get(name, name) for name in found["outputs"]],
        blocks=list(blocks.values()),
    )


def millions(count: int) -> str:
    """A number of parameters in words."""
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,}"


def size(shape: Sequence[int]) -> str:
    """ "224 × 224" of (C, 224, 224); empty of (C,)."""
    return " × ".join(f"{side}" for side in shape[1:])


def _word(layer: dict) -> str:
    """A layer as people name it; empty where it does nothing."""
    kind, text = layer["kind"], layer["text"]
    if kind.startswith(SILENT):
        return ""
    if kind == "Linear":
        return "linear"
    if kind == "Upsample":
        return f"{_option(text, 'mode') or ''} upsampling".strip()
    sides = _option(text, "kernel_size")
    stride = _option(text, "stride")
    if kind.startswith("Conv"):
        return f"conv {sides} × {sides}" + (f" / {stride}" if stride != "1" else "")
    if "Pool" in kind:
        return f"{kind[:3].lower()} pool" + (f" {sides} × {sides}" if sides else "")
    return WORDS.get(kind, kind)


def _option(text: str, name: str) -> str | None:
    """The first number or word of an option, as torch prints it."""
    match = re.search(rf"\b{name}=['(]*([\w.]+)", text)
    return match and match[1]


def _counted(words: list[str]) -> list[str]:
    """Words, the longest sequence that is repeated at once written once: "2 × (a, b)"."""
    for length in range(len(words) // 2, 0, -1):
        for start in range(len(words) - 2 * length + 1):
            unit = words[start : start + length]
            count = 1
            while words[start + count * length : start + (count + 1) * length] == unit:
                count += 1
            if count > 1 and length > 1:
                rest = words[start + count * length :]
                return [*words[:start], f"{count} × ({', '.join(unit)})", *_counted(rest)]
    return words
