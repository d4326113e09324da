"""Descriptions of networks, as `architecture` writes them, without torch."""

from __future__ import annotations

import json
from pathlib import Path


def layer(kind: str, text: str, parameters: int = 0) -> dict[str, object]:
    """A layer of a block."""
    return {"kind": kind, "text": text, "parameters": parameters}


def block(
    name: str, inputs: list[str], output: list[int], layers: list[dict], additions: int = 0
) -> dict[str, object]:
    """A block of layers."""
    return {
        "name": name,
        "inputs": inputs,
        "output": output,
        "parameters": sum(layer["parameters"] for layer in layers),
        "additions": additions,
        "layers": layers,
    }


def convolutions() -> list[dict]:
    """Twice a convolution, its normalisation and ReLU."""
    sequence = [
        layer("Conv2d", "1, 8, kernel_size=(3, 3), stride=(1, 1)", 100),
        layer("GroupNorm", "4, 8", 16),
        layer("Dropout", "p=0.0"),
        layer("ReLU", ""),
    ]
    return 2 * sequence


def unet() -> list[dict]:
    """A U-Net of two levels."""
    pool = layer("MaxPool2d", "kernel_size=2, stride=2")
    up = layer("Upsample", "scale_factor=(2.0, 2.0), mode='bilinear'")
    head = layer("Conv2d", "8, 9, kernel_size=(1, 1), stride=(1, 1)", 81)
    return [
        block("first", ["input"], [8, 48, 48], convolutions()),
        block("down", ["first"], [16, 24, 24], [pool, *convolutions()]),
        block("up", ["down", "first"], [8, 48, 48], [up, *convolutions()]),
        block("last", ["up"], [9, 48, 48], [head]),
    ]


def resnet() -> list[dict]:
    """A residual network of one stage."""
    size = [8, 24, 24]
    first = layer("Conv2d", "1, 8, kernel_size=(7, 7), stride=(2, 2)", 392)
    return [
        block("conv1", ["input"], size, [first]),
        block("bn1", ["conv1"], size, [layer("GroupNorm", "4, 8", 16)]),
        block("relu", ["bn1"], size, [layer("ReLU", "")]),
        block("layer1", ["relu"], size, convolutions(), additions=1),
        block("fc", ["layer1"], [5], [layer("Linear", "in_features=8", 45)]),
    ]


def write_network(path: Path, model: str) -> Path:
    """The description of a model: a residual network where its name says so, else a U-Net."""
    blocks = resnet() if model.startswith("resnet") else unet()
    found = {
        "network": model.removesuffix("_wide"),
        "model": model,
        "input": [1, 48, 48],
        "parameters": sum(block["parameters"] for block in blocks),
        "tensors": 14,
        "blocks": blocks,
        "outputs": [blocks[-1]["name"]],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path
