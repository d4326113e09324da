"""Networks described by running them, and what their figures make of it."""

from __future__ import annotations

import json

import pytest
import torch
from made_up_networks import write_network
from made_up_scans import write_store
from studies import overlaps

from dpmedbench import architecture, figures, models
from dpmedbench.figures import blocks


def described(network, channels=1, classes=9, side=64, **options):
    with torch.device("meta"):
        model = models.build(network, channels, classes, **options)
        return model, architecture.describe(model, (channels, side, side))


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("unet", {"features": [8, 16, 32]}),
        ("nested_unet", {"features": [8, 16, 32], "deep_supervision": True}),
        ("resnet18", {"features": [8, 16, 32, 64]}),
        ("resnet18", {"features": [8, 16, 32, 64], "norm": "frozen_batch"}),
    ],
)
def test_parameters_and_shapes_are_those_of_the_network(network, options):
    model, found = described(network, **options)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert found["tensors"] == len(trained)
    assert found["parameters"] == sum(p.numel() for p in trained)
    assert sum(block["parameters"] for block in found["blocks"]) == found["parameters"]
    for block in found["blocks"]:
        assert sum(layer["parameters"] for layer in block["layers"]) == block["parameters"]
    shapes = {block["name"]: block["output"] for block in found["blocks"]}
    expected = [9] if network == "resnet18" else [9, 64, 64]
    assert [shapes[name] for name in found["outputs"]] == [expected] * len(found["outputs"])


def test_a_unet_joins_what_lies_at_one_level():
    _, found = described("unet", features=[8, 16, 32])
    assert {block["name"]: block["inputs"] for block in found["blocks"]} == {
        "first": ["input"],
        "down.0": ["first"],
        "down.1": ["down.0"],
        "up.0": ["down.1", "down.0"],
        "up.1": ["up.0", "first"],
        "last": ["up.1"],
    }


def test_a_nested_unet_is_that_of_its_equation():
    depth = 3
    _, found = described("nested_unet", features=[8, 16, 32, 64])
    inputs = {block["name"]: set(block["inputs"]) for block in found["blocks"]}
    first = ["first", *(f"down.{i}" for i in range(depth))]
    for j in range(1, depth + 1):
        for i in range(depth + 1 - j):
            below = first[i + 1] if j == 1 else f"up.{j - 2}.{i + 1}"
            before = {f"up.{k - 1}.{i}" for k in range(1, j)}
            assert inputs[f"up.{j - 1}.{i}"] == {first[i], below} | before
    assert found["outputs"] == ["heads.0"]


def test_a_residual_block_is_told_by_its_addition():
    _, found = described("resnet18", channels=3, features=[8, 16, 32, 64])
    added = {block["name"]: block["additions"] for block in found["blocks"]}
    assert [name for name, count in added.items() if count] == [
        f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)
    ]
    assert set(added.values()) == {0, 1}


def test_a_block_that_the_image_does_not_reach_counts_as_reading_it(tmp_path):
    """Such as an embedding of positions."""

    class Places(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.last = torch.nn.Embedding(8, 8), torch.nn.Conv2d(1, 2, 1)

        def forward(self, images):
            return self.last(images + self.place(torch.arange(8).expand(len(images), 1, 8)))

    with torch.device("meta"):
        found = architecture.describe(Places(), (1, 8, 8))
    path = tmp_path / "places.json"
    path.write_text(json.dumps({"network": "places", "model": "places"} | found))
    assert [block.inputs for block in blocks.read(path).blocks] == [["input"], ["input", "place"]]
    figures.draw("network", networks=[path])


def test_no_hook_is_left_behind():
    model, found = described("unet", features=[8, 16])
    with torch.device("meta"):
        model(torch.empty(1, 1, 32, 32))
        assert architecture.describe(model, (1, 64, 64)) == found


def test_a_network_is_described_for_its_dataset(tmp_path):
    write_store(tmp_path / "duke.h5", "duke", 3, (48, 64))
    model = {"network": "unet", "features": [8, 16], "num_groups": 4}
    architecture.write(tmp_path / "duke.h5", model, tmp_path / "small.json")
    found = json.loads((tmp_path / "small.json").read_text())
    assert (found["model"], found["network"], found["input"]) == ("small", "unet", [1, 48, 64])
    assert found["blocks"][-1]["output"] == [9, 48, 64]


# Figures


def test_layers_in_words_and_blocks_in_place(tmp_path):
    _, found = described("resnet18", channels=3, features=[8, 16, 32, 64])
    (tmp_path / "net.json").write_text(json.dumps({"model": "net"} | found))
    network = blocks.read(tmp_path / "net.json")
    # the normalisation and the ReLU after the first convolution join it
    assert [block.name for block in network.blocks[:3]] == ["conv1", "maxpool", "layer1.0"]
    assert network.block["conv1"].made_of == "conv 7 × 7 / 2, group norm, ReLU"
    unit = "2 × (conv 3 × 3, group norm, ReLU), input added"
    assert network.block["layer1.1"].made_of == unit
    assert sum(block.parameters for block in network.blocks) == found["parameters"]
    levels = [network.level(block.name) for block in network.blocks]
    assert levels == [1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert sorted(network.column.values()) == list(range(len(network.blocks) + 1))


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("deep", [False, True])
def test_boxes_stand_apart_and_every_block_has_one(side, deep, tmp_path):
    paths = []
    for name, options in (("unet", {}), ("nested_unet", {"deep_supervision": deep})):
        _, found = described(name, side=side, **options)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"model": name} | found))
        paths.append(path)
    paths.append(write_network(tmp_path / "resnet18.json", "resnet18"))
    figure = figures.draw("network", networks=paths)
    assert overlaps(figure) == []
    from matplotlib.patches import FancyBboxPatch

    for path, axes in zip(paths, figure.axes, strict=True):
        boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        assert len(boxes) == len(blocks.read(path).blocks) + 1
        corners = [box.get_bbox() for box in boxes]
        for place, box in enumerate(corners):
            assert not any(box.overlaps(other) for other in corners[:place])
    assert overlaps(figures.draw("network_layers", networks=paths)) == []
