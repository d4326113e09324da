"""ImageNet weights: what each tensor of torchvision's layout becomes, and files that are not it."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpmedbench import models, pretrained
from dpmedbench.errors import UserError

AFFINE = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")


def layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's resnet18, written down from its definition."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}
    shapes |= {f"bn1.{part}": (64,) for part in (*AFFINE, *STATISTICS)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block, number in itertools.product((0, 1), (1, 2)):
            channels = before if (block, number) == (0, 1) else width
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv{number}.weight"] = (width, channels, 3, 3)
            shapes |= {f"{name}.bn{number}.{part}": (width,) for part in (*AFFINE, *STATISTICS)}
        if stage > 1:
            name = f"layer{stage}.0.downsample"
            shapes[f"{name}.0.weight"] = (width, before, 1, 1)
            shapes |= {f"{name}.1.{part}": (width,) for part in (*AFFINE, *STATISTICS)}
        before = width
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    tensors = {
        name: 0.05 * torch.rand(shape, generator=made) + 0.01 for name, shape in layout().items()
    }
    counts = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for name in tensors
        if name.endswith("running_mean")
    }
    return tensors | counts


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "made.pth"
    torch.save(state, path)
    return path


def build(channels: int, classes: int, file: Path, **options: object) -> torch.nn.Module:
    return models.build(
        "resnet18", channels, classes, weights="imagenet", weights_file=str(file), **options
    )


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    """The same path with other weights in it is another start."""
    path = tmp_path / "weights.pth"
    digests = []
    for content in (b"a", b"b"):
        path.write_bytes(content)
        digests.append(pretrained.digest({"weights_file": str(path)}))
    assert len(set(digests)) == 2
    assert pretrained.digest({"network": "unet"}) is None


def test_the_layout_is_that_of_torchvision() -> None:
    """Its 62 parameters and 40 statistics, and ours: the same, the statistics where frozen."""
    shapes = layout()
    assert len(shapes) == 62 + 40
    with torch.device("meta"):
        frozen = models.build("resnet18", 3, 1000, norm="frozen_batch").state_dict()
        group = models.build("resnet18", 3, 1000).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in frozen.items()} == shapes
    assert {name: tuple(tensor.shape) for name, tensor in group.items()} == {
        name: shape for name, shape in shapes.items() if not name.endswith(STATISTICS)
    }


def test_a_frozen_norm_keeps_all_of_the_file(state, file) -> None:
    found = build(3, 1000, file, norm="frozen_batch").state_dict()
    for name, tensor in found.items():
        assert torch.equal(tensor, state[name]), name


def test_a_group_norm_keeps_scale_and_shift(state, file) -> None:
    network = build(3, 1000, file)
    for name, tensor in network.named_parameters():
        assert torch.equal(tensor, state[name]), name
        assert tensor.requires_grad
    assert not any(name.endswith(STATISTICS) for name in network.state_dict())


def test_another_number_of_classes_leaves_the_last_layer_as_it_was(state, file) -> None:
    torch.manual_seed(3)
    random = models.build("resnet18", 3, 5)
    torch.manual_seed(3)
    found = build(3, 5, file)
    assert torch.equal(found.fc.weight, random.fc.weight)
    assert torch.equal(found.fc.bias, random.fc.bias)
    assert torch.equal(found.layer4[1].bn2.bias, state["layer4.1.bn2.bias"])


def test_a_grey_image_gives_what_its_copy_in_three_channels_does(file) -> None:
    grey, colour = (build(channels, 1000, file, norm="frozen_batch") for channels in (1, 3))
    for network in (grey, colour):
        network.double().mean.fill_(0.449)
        network.std.fill_(0.226)
    images = torch.rand(2, 1, 20, 14, dtype=torch.float64)
    torch.testing.assert_close(grey(images), colour(images.expand(2, 3, 20, 14)))


def test_safetensors_say_the_same(state, file, tmp_path) -> None:
    path = tmp_path / "made.safetensors"
    save_file(state, path)
    theirs, ours = (build(1, 1000, other).state_dict() for other in (file, path))
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_other_channels_are_refused(file) -> None:
    with pytest.raises(UserError, match="weights for 1 or 3 channels, expected 2"):
        build(2, 2, file)


def test_a_missing_file_names_where_to_get_it(tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"none.pth: found no file, .* https://download.pytorch"):
        build(3, 2, tmp_path / "none.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^resources/weights/resnet18-f37072fd.pth: found no file"):
        models.build("resnet18", 3, 2, weights="imagenet")


def test_the_official_name_needs_the_official_bytes(tmp_path) -> None:
    """The digest begins with the digits of the name, as torchvision promises."""
    assert pretrained.OFFICIAL.sha256.startswith("f37072fd")
    path = tmp_path / pretrained.OFFICIAL.filename
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, path)
    with pytest.raises(UserError, match=r"found SHA-256 [0-9a-f]{64}, expected f37072fd.* delete"):
        build(3, 2, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, 0.9999])
def test_a_damaged_file_is_named(tmp_path, suffix, kept) -> None:
    path = tmp_path / f"cut{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save({"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64)}, path)
    with path.open("r+b") as handle:
        size = path.stat().st_size
        handle.truncate(kept if isinstance(kept, int) else int(kept * size))
    with pytest.raises(UserError, match=r"cut\S+: found no readable weights .* get it again"):
        build(3, 2, path)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_weights(tmp_path, seed) -> None:
    path = tmp_path / "noise.pth"
    made = torch.Generator().manual_seed(seed)
    # the first byte as in a pickle, for half of them
    body = torch.randint(256, (2000,), dtype=torch.uint8, generator=made).numpy().tobytes()
    path.write_bytes(b"\x80\x02" + body if seed % 2 else body)
    with pytest.raises(UserError, match=r"noise.pth: found no readable weights"):
        build(3, 2, path)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in a file of weights was executed",))


def test_nothing_in_a_file_is_executed(tmp_path) -> None:
    path = tmp_path / "trap.pth"
    torch.save({"conv1.weight": Trap()}, path)
    with pytest.raises(UserError, match="found no readable weights"):
        build(3, 2, path)
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError, match="found no readable weights"):
        build(3, 2, path)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("layer3.0.downsample.0.weight"), "nothing for layer3.0.downsample.0.weight"),
        (without("bn1.running_var"), "nothing for bn1.running_var, expected (64,)"),
        (lambda state: state | {"layer1.2.conv1.weight": torch.ones(64, 64, 3, 3)},
         "for layer1.2.conv1.weight, expected nothing"),
        (lambda state: state | {"conv1.weight": torch.ones(64, 1, 7, 7)},
         "found (64, 1, 7, 7) for conv1.weight, expected (64, 3, 7, 7)"),
        (lambda state: {"state_dict": state}, "found no state_dict"),
        (lambda state: list(state.values()), "found no state_dict"),
    ],
)  # fmt: skip
def test_the_file_of_another_network_is_named(tmp_path, change, sentence) -> None:
    path = tmp_path / "other.pth"
    state = {name: torch.zeros(()).expand(shape) for name, shape in layout().items()}
    torch.save(change(state), path)
    with pytest.raises(UserError) as caught:
        build(3, 2, path, norm="frozen_batch")
    assert sentence in str(caught.value)
