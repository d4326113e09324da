"""The layers that fastDP would freeze or clip wrongly are named; the others pass."""

import pytest
import torch
import zoo
from fastdp_check import conv, needs_fastdp, network, small
from torch import nn

from dpmedbench.errors import UserError
from dpmedbench.mechanisms import fastdp
from dpmedbench.mechanisms._fastdp_layers import check_layers


class OwnConv(nn.Conv2d):
    pass


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def _shared():
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers)


REFUSED = {
    "transposed": (lambda: nn.ConvTranspose2d(1, 1, 2), "it knows exactly the types Linear, "),
    "conv3d": (lambda: nn.Conv3d(1, 1, 2), "it knows exactly"),
    "batch norm": (lambda: nn.BatchNorm2d(2), "it knows exactly"),
    "prelu": (nn.PReLU, "it knows exactly"),
    "subclass": (lambda: OwnConv(1, 1, 2), "it knows exactly"),
    "bare parameter": (Bare, "it knows exactly"),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        "it knows exactly",
    ),
    "foreign parameter": (
        lambda: (
            (layer := nn.Linear(2, 2)).register_parameter("gain", nn.Parameter(torch.ones(1)))
            or layer
        ),
        "which has a parameter gain",
    ),
    "groups": (lambda: nn.Conv2d(2, 2, 3, groups=2), "ignores groups=2"),
    "padding mode": (lambda: conv(padding_mode="reflect"), "ignores padding_mode='reflect'"),
    "same": (lambda: nn.Conv1d(1, 1, 3, padding="same"), "padding must be numbers and is 'same'"),
    "statistics": (
        lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True),
        "running statistics would not be private",
    ),
    "frequencies": (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
    "half": (lambda: nn.Linear(2, 2).bfloat16(), "norms in torch.bfloat16"),
    "shared": (_shared, "its parameters are shared"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_fastdp_would_freeze_or_clip_wrongly_are_named(case):
    make, message = REFUSED[case]
    layer = make()
    with pytest.raises(UserError, match=f"fastDP cannot train layer 1.*{message}.*; replace or"):
        check_layers(nn.Sequential(nn.Linear(2, 2), layer))
    check_layers(nn.Sequential(nn.Linear(2, 2), layer.requires_grad_(False)))


def test_a_frozen_model_is_refused():
    with pytest.raises(UserError, match="found no trainable parameter"):
        check_layers(small().requires_grad_(False))


@pytest.mark.parametrize("name", zoo.networks())
def test_networks_pass(name):
    check_layers(zoo.case(name)[0])


@needs_fastdp
def test_build_refuses_them():
    model = network(conv, lambda: nn.ConvTranspose2d(2, 1, 2))
    with pytest.raises(UserError, match=r"cannot train layer 1 \(ConvTranspose2d\)"):
        fastdp.build(model, "mix_opt", "abadi", (0.5,))
