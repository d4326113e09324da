"""The keys of a network in the configuration: defaults, what goes together, what reaches it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import zoo
from pydantic import ValidationError

from dpmedbench import config, config_files, models


def sentences(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        config.Model(**values)
    return "; ".join(map(config._sentence, caught.value.errors()))


@pytest.mark.parametrize("network", models.names())
def test_what_is_left_out_or_null_is_the_default_of_the_network(network: str) -> None:
    expected = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in models.defaults(network).items()
        if value is not None
    }
    found = config.Model(network=network)
    assert found.model_dump(mode="json") == {"network": network, **expected}
    nulls = dict.fromkeys(set(config.Model.model_fields) - {"network"})
    assert config.Model(network=network, **nulls) == found
    assert config.Model(**found.model_dump(mode="json")) == found


@pytest.mark.parametrize("case", zoo.CASES)
def test_what_is_dumped_builds_the_network(case: str) -> None:
    network, options = zoo.CASES[case]
    dumped = config.Model(network=network, **options).model_dump(mode="json")
    built = models.build(dumped.pop("network"), 1, 3, **dumped)
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    expected = zoo.case(case)[0].state_dict()
    assert shapes == {name: tensor.shape for name, tensor in expected.items()}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"network": "vnet"}, "network is 'vnet', allowed are ['nested_unet', 'resnet18', 'unet']"),
        (
            {"network": "unet", "deep_supervision": False},
            "network unet has no deep_supervision, allowed are features, num_groups",
        ),
        ({"network": "nested_unet", "weights": "none"}, "network nested_unet has no weights"),
        (
            {"network": "resnet18", "deep_supervision": True},
            "network resnet18 has no deep_supervision",
        ),
        ({"network": "resnet18", "num_groups": 48}, "48 does not divide features [64, 128, 256, 5"),
        ({"network": "unet", "features": [8]}, "features are [8], expected at least two"),
        ({"network": "unet", "features": [8, 0]}, "features.1: found 0, input should be greater"),
        ({"network": "resnet18", "norm": "batch"}, "norm: found 'batch', input should be 'group'"),
        ({"network": "resnet18", "weights": "coco"}, "weights: found 'coco', input should be"),
        ({"network": "resnet18", "weights_file": "a"}, "weights_file goes with weights imagenet"),
        (
            {"network": "resnet18", "weights": "imagenet", "features": [8, 16, 32, 64]},
            "weights imagenet are for features [64, 128, 256, 512]",
        ),
        (
            {"network": "unet", "width": 3},
            "found the key width, which there is not; allowed are network",
        ),
    ],
)
def test_mistakes_are_named(values: dict, sentence: str) -> None:
    assert sentence in sentences(**values)


def test_groups_need_not_divide_where_there_are_none() -> None:
    found = config.Model(network="resnet18", norm="frozen_batch", features=[6, 6])
    assert found.features == [6, 6]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            "features",
            "Left out: nested_unet [32, 64, 128, 256, 512], resnet18 [64, 128, 256, 512], "
            "unet [32, 64, 128, 256, 512].",
        ),
        ("deep_supervision", "Left out: nested_unet false."),
        ("norm", 'Left out: resnet18 "group".'),
    ],
)
def test_the_defaults_are_told(key: str, sentence: str) -> None:
    assert config.Model.model_fields[key].description.endswith(sentence)


def test_reading_the_configuration_imports_no_network() -> None:
    code = (
        "import sys\n"
        "from dpmedbench import config\n"
        "config.Model(network='resnet18')\n"
        "print(sorted({'torch', 'monai', 'opacus'} & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=config_files.ROOT / "workflow" / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
