"""The models: discovery, shape, and fitness for per-sample gradients."""

from __future__ import annotations

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator

from dpmedbench import models
from dpmedbench.errors import UserError
from dpmedbench.losses import segmentation_loss

SMALL = {"unet": {"features": (4, 8, 12), "num_groups": 4}}


def small(name: str, in_channels: int = 1, num_classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build(name, in_channels, num_classes, **SMALL.get(name, {})).double()


def batch(size: int = 3, sides: tuple[int, int] = (12, 9)) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    images = torch.rand(size, 1, *sides, dtype=torch.float64, generator=made)
    return images, torch.randint(0, 3, (size, *sides), dtype=torch.uint8, generator=made)


def test_unet_is_found() -> None:
    assert "unet" in models.names()
    assert models.names() == sorted(models.names())


def test_a_model_is_added_by_a_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "one_by_one.py").write_text(
        "import torch\n"
        "def build(in_channels, num_classes):\n"
        "    return torch.nn.Conv2d(in_channels, num_classes, 1)\n"
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "one_by_one" in models.names()
    assert models.build("one_by_one", 1, 5).out_channels == 5


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("vnet", {}, "found 'vnet', expected one of .*unet"),
        ("unet", {"width": 3}, "option 'width', expected features or num_groups"),
        ("unet", {"features": (8, 12)}, "num_groups 8 .*12 is no multiple of 8"),
        ("unet", {"features": (8,)}, "at least two features"),
        ("unet", {"num_groups": 0}, "all numbers positive"),
    ],
)
def test_mistakes_are_named(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.build(name, 1, 2, **options)


def test_unet_of_the_studies() -> None:
    model = models.build("unet", 1, 9)
    kinds = {type(module) for module in model.modules()}
    assert torch.nn.ConvTranspose2d not in kinds
    assert not any(issubclass(kind, torch.nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert [norm.num_channels for norm in norms[:10:2]] == [32, 64, 128, 256, 512]
    assert {norm.num_groups for norm in norms} == {8}
    with torch.no_grad():
        logits = model(torch.rand(1, 1, 32, 48))
    assert logits.shape == (1, 9, 32, 48)
    assert logits.min() < 0  # no softmax


def test_unet_is_made_of_the_layers_of_monai() -> None:
    """The way down equals MONAI's BasicUNet, and so does the way up but for its last block."""
    from monai.networks.nets import BasicUNet

    style = {"norm": ("group", {"num_groups": 4}), "act": ("RELU", {"inplace": False})}
    features = (8, 8, 12, 16, 20)
    theirs = BasicUNet(2, 1, 3, (*features, 8), upsample="nontrainable", **style).double()
    ours = models.build("unet", 1, 3, features=features, num_groups=4).double()
    pairs = [
        (ours.first, theirs.conv_0),
        *((ours.down[i], getattr(theirs, f"down_{i + 1}")) for i in range(4)),
        *((ours.up[i], getattr(theirs, f"upcat_{4 - i}")) for i in range(3)),
    ]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    signal = other_signal = torch.rand(2, 1, 21, 18, dtype=torch.float64)
    ours.up[3], theirs.upcat_1 = torch.nn.Identity(), torch.nn.Identity()
    levels = [ours.first(signal)]
    for block in ours.down:
        levels.append(block(levels[-1]))
    signal = levels.pop()
    for block in ours.up[:3]:
        signal = block(signal, levels.pop())
    x0 = theirs.conv_0(other_signal)
    x1 = theirs.down_1(x0)
    x2 = theirs.down_2(x1)
    x3 = theirs.down_3(x2)
    expected = theirs.upcat_2(theirs.upcat_3(theirs.upcat_4(theirs.down_4(x3), x3), x2), x1)
    torch.testing.assert_close(signal, expected)


@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (11, 16)])
def test_unet_takes_any_sides(sides: tuple[int, int]) -> None:
    assert small("unet")(batch(2, sides)[0]).shape == (2, 3, *sides)


def test_unet_refuses_images_that_vanish_on_the_way_down() -> None:
    with pytest.raises(UserError, match="3 x 9 pixels, expected sides of at least 4"):
        small("unet")(batch(1, (3, 9))[0])


@pytest.mark.parametrize("name", models.names())
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = small(name)
    images, target = batch()
    segmentation_loss(model(images), target).sum().backward()
    still = [key for key, value in model.named_parameters() if not value.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_see_its_companions(name: str, training: bool) -> None:
    model = small(name).train(training)
    images, _ = batch()
    others = torch.cat([images[:1], 5 * images[1:].flip(0)])
    torch.testing.assert_close(model(images)[0], model(others)[0])
    torch.testing.assert_close(model(images)[0], model(images[:1])[0])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", models.names())
def test_opacus_per_sample_gradients_equal_a_loop(name: str) -> None:
    model = small(name)
    assert ModuleValidator.validate(model, strict=False) == []
    images, target = batch()
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=True)
    segmentation_loss(wrapped(images), target).sum().backward()
    together = {key: value.grad_sample.clone() for key, value in model.named_parameters()}
    wrapped.remove_hooks()
    for sample in range(len(images)):
        one = slice(sample, sample + 1)
        loss = segmentation_loss(model(images[one]), target[one]).sum()
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for (key, found), expected in zip(together.items(), alone, strict=True):
            torch.testing.assert_close(found[sample], expected, rtol=1e-9, atol=1e-13, msg=key)
