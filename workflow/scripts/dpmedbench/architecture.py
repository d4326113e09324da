"""What a network is made of, read off the network itself while it runs: for its diagram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from dpmedbench import models
from dpmedbench.files import write_json
from dpmedbench.store import open_store

CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
INPUT = "input"


def write(store: Path, model: Mapping[str, object], output: Path) -> None:
    """Describe network `model` (as configured, without weights) for the dataset in `store` as JSON.

    Keys: `describe`, its `network` and its name, `model`.
    """
    with open_store(store) as data, torch.device("meta"):  # shapes only: nothing is computed
        network = models.of(model, data.channels, len(data.classes))
        found = describe(network, (data.channels, *data.image_size))
    write_json(output, {"network": model["network"], "model": output.stem} | found)


def describe(network: torch.nn.Module, shape: tuple[int, int, int]) -> dict[str, object]:
    """Run `network`, which lies on the meta device, on one image (C, H, W) and note what happens.

    Blocks are the children of the network, those of containers in their place. Keys of the result:

    - input: the shape; parameters, tensors: how many numbers and tensors are trained;
    - blocks, in the order they run: name, inputs (the blocks whose outputs reach it, "input" for
      the image), output (its shape, without the batch), parameters, additions (of two maps, the
      mark of a residual) and layers (kind, text as torch prints it, parameters);
    - outputs: the blocks whose outputs the logits are made of.
    """
    blocks: dict[str, dict] = {}
    flow = _Flow()
    handles = []
    for name, block in _blocks(network):
        handles += _watch(name, block, blocks, flow)
    try:
        image = torch.empty(1, *shape, device="meta")
        image.origins = {INPUT: None}
        with flow, torch.no_grad():
            logits = network(image)
    finally:
        for handle in handles:
            handle.remove()
    trained = [p.numel() for p in network.parameters() if p.requires_grad]
    return {
        "input": list(shape),
        "parameters": sum(trained),
        "tensors": len(trained),
        "blocks": list(blocks.values()),
        "outputs": list(logits.origins),
    }


class _Flow(TorchFunctionMode):
    """While it is on, every tensor has `origins`: the blocks that it is made of, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[dict] = []  # the block that runs now

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        origins = {name: None for tensor in _tensors(args, kwargs) for name in _origins(tensor)}
        for tensor in _tensors(result):
            tensor.origins = origins
        maps = [tensor for tensor in _tensors(args) if tensor.dim() == 4]
        if self.inside and len(maps) == 2 and function in (torch.Tensor.add, torch.add):
            self.inside[-1]["additions"] += 1
        return result


def _watch(name: str, block: torch.nn.Module, blocks: dict[str, dict], flow: _Flow) -> list:
    """Hooks that enter `block` into `blocks` when it runs."""

    def enter(_, inputs) -> None:
        origins = {source: None for tensor in _tensors(inputs) for source in _origins(tensor)}
        blocks[name] = {
            "name": name,
            "inputs": list(origins) or [INPUT],  # of an embedding of places: they are the image's
            "output": None,
            "parameters": sum(p.numel() for p in block.parameters() if p.requires_grad),
            "additions": 0,
            "layers": [],
        }
        flow.inside.append(blocks[name])

    def leave(_, inputs, output) -> None:
        blocks[name]["output"] = list(output.shape[1:])
        output.origins = {name: None}
        flow.inside.pop()

    def ran(layer, inputs, output) -> None:
        blocks[name]["layers"].append(
            {
                "kind": type(layer).__name__,
                "text": layer.extra_repr(),
                "parameters": sum(p.numel() for p in layer.parameters() if p.requires_grad),
            }
        )

    leaves = [module for module in block.modules() if not any(module.children())]
    return [
        block.register_forward_pre_hook(enter),
        *(leaf.register_forward_hook(ran) for leaf in leaves),
        block.register_forward_hook(leave),
    ]


def _blocks(module: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in module.named_children():
        if type(child) in CONTAINERS:
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _tensors(*values: object) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(*value)
        elif isinstance(value, dict):
            yield from _tensors(*value.values())


def _origins(tensor: torch.Tensor) -> dict[str, None]:
    return getattr(tensor, "origins", {})
