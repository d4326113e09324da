"""The networks: discovery, shapes, wiring, and fitness for per-sample gradients."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
import zoo
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch.utils._python_dispatch import TorchDispatchMode

from dpmedbench import models
from dpmedbench.errors import UserError

every = pytest.mark.parametrize("name", zoo.CASES)


def images(size: int, *sides: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(1)
    return torch.rand(size, 1, *sides, dtype=torch.float64, generator=made)


def test_every_network_is_found_and_has_a_case() -> None:
    assert models.names() == ["nested_unet", "resnet18", "unet"]
    assert {network for network, _ in zoo.CASES.values()} == set(models.names())


@pytest.mark.parametrize("name", models.names())
def test_what_is_read_of_a_network_is_what_it_says(name: str) -> None:
    module = importlib.import_module(f"dpmedbench.models.{name}")
    options = list(inspect.signature(module.build).parameters.values())[2:]
    assert models.defaults(name) == {option.name: option.default for option in options}
    assert models.task(name) == module.TASK


def test_a_network_is_added_by_a_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "one_by_one.py").write_text(
        "import torch\n"
        "def build(in_channels, num_classes, bias=True):\n"
        "    return torch.nn.Conv2d(in_channels, num_classes, 1, bias=bias)\n"
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "one_by_one" in models.names()
    assert models.defaults("one_by_one") == {"bias": True}
    assert models.build("one_by_one", 1, 5, bias=False).out_channels == 5
    with pytest.raises(UserError, match=r"one_by_one.py: found no constant TASK"):
        models.task("one_by_one")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("vnet", {}, "network is 'vnet', allowed are .*'unet'"),
        ("unet", {"width": 3}, "network unet has no width, allowed are features, num_groups"),
        ("unet", {"norm": "group"}, "network unet has no norm"),
        ("unet", {"features": (8, 12)}, r"num_groups 8 does not divide features \[12\]"),
        ("unet", {"features": (8,)}, r"features are \[8\], expected at least two"),
        ("nested_unet", {"features": (8, 0)}, "all positive"),
        ("unet", {"num_groups": 0}, "num_groups 0 does not divide"),
        ("resnet18", {"norm": "batch"}, "norm is 'batch', allowed are group, frozen_batch"),
        ("resnet18", {"weights": "coco"}, "weights is 'coco', allowed are none, imagenet"),
        ("resnet18", {"weights_file": "a.pth"}, "weights_file goes with weights imagenet"),
        (
            "resnet18",
            {"weights": "imagenet", "features": (8, 16, 32, 64)},
            r"weights imagenet are for features \[64, 128, 256, 512\], found \[8, 16",
        ),
    ],
)
def test_mistakes_are_named(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.build(name, 1, 2, **options)


def test_unet_of_the_studies() -> None:
    model = models.build("unet", 1, 9)
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


def test_nested_unet_is_wired_as_monai_does() -> None:
    """MONAI's BasicUNetPlusPlus, fixed at five levels, with our blocks in the place of its own."""
    from monai.networks.nets import BasicUNetPlusPlus

    options = {"features": (4, 6, 8, 10, 12), "num_groups": 2, "deep_supervision": True}
    ours = models.build("nested_unet", 1, 3, **options).double()
    theirs = BasicUNetPlusPlus(spatial_dims=2, features=(4,) * 6, deep_supervision=True)
    theirs.conv_0_0 = ours.first
    for level in range(1, 5):
        setattr(theirs, f"conv_{level}_0", ours.down[level - 1])
        setattr(theirs, f"final_conv_0_{level}", ours.heads[level - 1])
        for row in range(5 - level):
            setattr(theirs, f"upcat_{row}_{level}", ours.up[level - 1][row])
    batch = images(2, 21, 18)
    torch.testing.assert_close(ours(batch), torch.stack(theirs(batch), dim=1))
    assert len(list(theirs.parameters())) == len(list(ours.parameters()))


def test_nested_unet_has_the_blocks_of_the_unet() -> None:
    """They differ by the nodes between, and by what the last one of a row joins."""
    unet, nested = (models.build(name, 1, 9).state_dict() for name in ("unet", "nested_unet"))
    for key in unet:
        if key.startswith(("first.", "down.")):
            assert unet[key].shape == nested[key].shape
    assert unet["up.0.convs.conv_0.conv.weight"].shape == (256, 512, 3, 3)
    assert nested["up.0.3.convs.conv_0.conv.weight"].shape == (256, 512, 3, 3)
    assert nested["up.3.0.convs.conv_0.conv.weight"].shape == (32, 4 * 32 + 32, 3, 3)
    assert nested["heads.0.weight"].shape == (9, 32, 1, 1)
    assert "heads.1.weight" not in nested


def test_deep_supervision_trains_every_head_and_answers_with_the_last() -> None:
    model, batch, targets, losses = zoo.case("nested_unet_deep")
    logits = model(batch)
    assert logits.shape == (3, 2, 3, 16, 16)
    torch.testing.assert_close(model.eval()(batch), logits[:, -1])
    each = [losses(logits[:, head], targets) for head in range(2)]
    torch.testing.assert_close(losses(logits, targets), (each[0] + each[1]) / 2)
    assert losses(logits[:0], targets[:0]).shape == (0,)


def test_resnet_is_monais_where_its_norm_is_fixed() -> None:
    """The same weights and statistics in MONAI's ResNet in evaluation mode: the same logits."""
    from monai.networks.nets.resnet import ResNet, ResNetBlock

    theirs = ResNet(
        ResNetBlock, [2, 2, 2, 2], [4, 6, 8, 10], 2, 3, 7, 2, num_classes=5, bias_downsample=False
    ).double()
    for value in theirs.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    options = {"features": (4, 6, 8, 10), "norm": "frozen_batch"}
    ours = models.build("resnet18", 3, 5, **options).double()
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[key] for key in ours.state_dict()})
    assert {key.rpartition(".")[2] for key in set(weights) - set(ours.state_dict())} == {
        "num_batches_tracked"
    }
    batch = torch.cat([images(2, 45, 38) for _ in range(3)], dim=1)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    mean, std = (torch.tensor(part).double().view(1, 3, 1, 1) for part in (mean, std))
    expected = theirs.eval()((batch - mean) / std)
    torch.testing.assert_close(ours.train()(batch), expected, rtol=1e-6, atol=1e-6)


def test_resnet18_has_the_published_number_of_parameters() -> None:
    """11,689,512 with 1,000 classes, as torchvision says; 9,600 of them scale and shift."""
    with torch.device("meta"):
        group = models.build("resnet18", 3, 1000)
        frozen = models.build("resnet18", 3, 1000, norm="frozen_batch")
    assert sum(parameter.numel() for parameter in group.parameters()) == 11_689_512
    assert sum(parameter.numel() for parameter in frozen.parameters()) == 11_689_512 - 9_600


def test_a_frozen_norm_stays_as_it_is() -> None:
    model, batch, targets, losses = zoo.case("resnet18_frozen_batch")
    before = {key: value.clone() for key, value in model.named_buffers()}
    trained = model(batch)
    losses(trained, targets).sum().backward()
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key]), key
    torch.testing.assert_close(model.eval()(batch), trained)
    assert not any("bn" in key for key, _ in model.named_parameters())


def test_width_and_depth_follow_the_features() -> None:
    model = models.build("resnet18", 1, 2, features=(8, 24), num_groups=8)
    assert model.fc.in_features == 24
    assert model.stages == 2
    assert len(models.build("nested_unet", 1, 2, features=(8, 8, 8)).up) == 2


@pytest.mark.parametrize("name", [name for name in zoo.CASES if "unet" in name])
@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (11, 16)])
def test_unets_take_any_sides(name: str, sides: tuple[int, int]) -> None:
    assert zoo.case(name)[0].eval()(images(2, *sides)).shape == (2, 3, *sides)


@pytest.mark.parametrize("name", ["unet", "nested_unet"])
def test_unets_refuse_images_that_vanish_on_the_way_down(name: str) -> None:
    model = models.build(name, 1, 3, features=(4, 4, 4), num_groups=2).double()
    with pytest.raises(UserError, match="3 x 9 pixels, expected sides of at least 4"):
        model(images(1, 3, 9))


@pytest.mark.parametrize("sides", [(1, 1), (9, 5), (33, 70)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_takes_any_sides_grey_or_colour(sides: tuple[int, int], channels: int) -> None:
    model = models.build("resnet18", channels, 5, features=(4, 4, 8, 8), num_groups=2).double()
    assert model(images(2, *sides).expand(2, channels, *sides)).shape == (2, 5)


@every
def test_no_layer_has_batch_statistics_or_is_transposed(name: str) -> None:
    kinds = {type(module) for module in zoo.case(name)[0].modules()}
    refused = (torch.nn.modules.batchnorm._NormBase, torch.nn.modules.conv._ConvTransposeNd)
    assert not any(issubclass(kind, refused) for kind in kinds)


@every
def test_nothing_is_changed_in_place(name: str) -> None:
    class Mutations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if function._schema.is_mutable:
                found.append(function.name())
            return function(*arguments, **(keywords or {}))

    found: list[str] = []
    model, batch, _, _ = zoo.case(name)
    with Mutations():
        model(batch)
        assert found == []
        torch.ones(1).add_(1)  # the net holds
    assert found[-1:] == ["aten::add_.Tensor"]


@every
def test_every_parameter_receives_a_gradient_from_one_use(name: str) -> None:
    model, batch, targets, losses = zoo.case(name)
    uses = dict.fromkeys(
        (module for module in model.modules() if list(module.parameters(recurse=False))), 0
    )
    for module in uses:
        module.register_forward_pre_hook(lambda module, _: uses.update({module: uses[module] + 1}))
    losses(model(batch), targets).sum().backward()
    still = [key for key, value in model.named_parameters() if not value.grad.abs().sum() > 0]
    assert still == []
    assert set(uses.values()) == {1}


@every
@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_see_its_companions(name: str, training: bool) -> None:
    model, batch, targets, losses = zoo.case(name)
    model.train(training)
    others = torch.cat([batch[:1], 5 * batch[1:].flip(0)])
    torch.testing.assert_close(model(batch)[0], model(others)[0])
    torch.testing.assert_close(model(batch)[0], model(batch[:1])[0])
    batch.requires_grad_()
    (gradient,) = torch.autograd.grad(losses(model(batch), targets)[0], batch)
    assert gradient[0].abs().sum() > 0
    assert not gradient[1:].any()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@every
def test_opacus_per_sample_gradients_equal_a_loop(name: str) -> None:
    model, batch, targets, losses = zoo.case(name)
    assert ModuleValidator.validate(model, strict=False) == []
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=True)
    losses(wrapped(batch), targets).sum().backward()
    together = {key: value.grad_sample.clone() for key, value in model.named_parameters()}
    wrapped.remove_hooks()
    for sample in range(len(batch)):
        one = slice(sample, sample + 1)
        loss = losses(model(batch[one]), targets[one]).sum()
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for (key, found), expected in zip(together.items(), alone, strict=True):
            torch.testing.assert_close(found[sample], expected, rtol=1e-9, atol=1e-13, msg=key)


@every
def test_bfloat16_autocast_stays_near(name: str) -> None:
    model, batch, targets, losses = zoo.case(name)
    exact = losses(model(batch), targets)
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(model(batch.float()), targets)
    found.sum().backward()
    torch.testing.assert_close(found.double(), exact, rtol=0.05, atol=0.05)
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
