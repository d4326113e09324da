"""ImageNet weights of ResNet-18 in torchvision's layout."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench.datasets.base import Download
from dpmedbench.errors import UserError, first_line
from dpmedbench.files import sha256

if TYPE_CHECKING:
    import torch

# torchvision's ResNet18_Weights.IMAGENET1K_V1; its file names end in the first digits of the
# SHA-256.
OFFICIAL = Download(
    url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
    filename="resnet18-f37072fd.pth",
    sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
)
PATH = f"resources/weights/{OFFICIAL.filename}"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def is_public(model: Mapping) -> bool:
    """Whether the weights that `model`, a section of the settings, begins with saw no patient.

    They are random or the official ones: a file of the official name is held against its SHA-256.
    """
    given = model.get("weights_file")
    return given is None or Path(given).name == OFFICIAL.filename


def digest(model: Mapping) -> str | None:
    """SHA-256 of the file that `model` names as its weights; None where it names none."""
    given = model.get("weights_file")
    return None if given is None else sha256(Path(given))


def load(network: torch.nn.Module, path: str | Path) -> None:
    """Load a file of torchvision's `resnet18` (.pth, or .safetensors) into `network`.

    A frozen batch normalisation takes the scale, shift and statistics of the file's; a group
    normalisation its scale and shift, the statistics are left out. For one input channel the
    first convolution is summed over the colours: a grey image gives what its copy in three
    channels does where all are normalised alike. `fc` stays as it is where the file has another
    number of classes.

    Raises UserError for a file that is missing, damaged or of another network; one of the
    official name must have the official SHA-256.
    """
    path = Path(path)
    here = network.state_dict()
    found = {
        name: tensor
        for name, tensor in _read(path).items()
        if name in here or name.rpartition(".")[2] not in STATISTICS
    }
    colours = here["conv1.weight"].shape[1]
    if colours not in (1, 3):
        raise UserError(f"{path}: found weights for 1 or 3 channels, expected {colours}; use none")
    shapes = {name: tuple(tensor.shape) for name, tensor in here.items()}
    there = {name: tuple(tensor.shape) for name, tensor in found.items()}
    expected = shapes | {"conv1.weight": (shapes["conv1.weight"][0], 3, 7, 7)}
    for name in (*expected, *there):
        if expected.get(name) != there.get(name) and not name.startswith("fc."):
            raise UserError(
                f"{path}: found {there.get(name, 'nothing')} for {name}, expected "
                f"{expected.get(name, 'nothing')} as in torchvision's resnet18; give its file"
            )
    if colours == 1:
        found["conv1.weight"] = found["conv1.weight"].sum(dim=1, keepdim=True)
    if any(there.get(name) != shapes[name] for name in ("fc.weight", "fc.bias")):
        found = {name: tensor for name, tensor in found.items() if not name.startswith("fc.")}
    network.load_state_dict(here | found)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name; nothing in it is executed."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(
            f"{path}: found no file, expected the ImageNet weights of ResNet-18; download them "
            f"from {OFFICIAL.url}, or name the file that has them as weights_file"
        )
    if path.name == OFFICIAL.filename and (digest := sha256(path)) != OFFICIAL.sha256:
        raise UserError(
            f"{path}: found SHA-256 {digest}, expected {OFFICIAL.sha256}; delete the file and "
            f"download it again from {OFFICIAL.url}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError,
        SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: found no readable weights ({first_line(error)[:120]}), expected a whole "
            "file of torch.save or safetensors; get it again"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in tensors.items()
    ):
        raise UserError(
            f"{path}: found no state_dict, expected names and tensors as in torchvision's "
            "resnet18; give its file"
        )
    return tensors
