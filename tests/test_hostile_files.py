"""Files made to do harm: nothing in them is executed, absurd sizes are refused with a sentence."""

from __future__ import annotations

import ast
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import scipy.io
import torch
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dpmedbench import checkpoint, image_files, matlab, pictures, prediction, pretrained, provenance
from dpmedbench.datasets import duke
from dpmedbench.datasets.base import Unreadable
from dpmedbench.errors import UserError


class Payload:
    """Executed by whoever unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(params=["torch", "torch, old format", "pickle"])
def trap(request, tmp_path):
    """Write a file that makes the folder `mark` when it is executed; returns what writes it."""
    mark = tmp_path / "executed"

    def write(path):
        content = {"fingerprint": "f", "model": Payload(mark)}
        if request.param == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            new = request.param == "torch"
            torch.save(content, path, _use_new_zipfile_serialization=new)

    yield write
    assert not mark.exists()


def test_the_trap_works(tmp_path):
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Payload(tmp_path)))


def test_a_checkpoint_is_not_executed(trap, tmp_path):
    trap(tmp_path / checkpoint.FILE)
    assert checkpoint.load(tmp_path, "f") is None


def test_weights_are_not_executed(trap, tmp_path):
    trap(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="found no readable safetensors file"):
        prediction.load_weights(torch.nn.Linear(1, 1), tmp_path / "model.safetensors")
    trap(tmp_path / "mine.pth")
    network = torch.nn.Module()
    network.conv1 = torch.nn.Conv2d(3, 1, 7)
    with pytest.raises(UserError, match="found no readable weights"):
        pretrained.load(network, tmp_path / "mine.pth")


def test_an_array_file_is_not_executed(tmp_path):
    array = np.empty(1, object)
    array[0] = Payload(tmp_path / "executed")
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(Unreadable, match="found no readable file"):
        image_files.image(tmp_path / "a.npy", 1)
    assert not (tmp_path / "executed").exists()


def test_the_library_has_no_call_that_executes_a_file():
    safe = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False"}
    never = ("eval", "exec", "os.system", "pickle.load", "pickle.loads", "yaml.load")
    for path in provenance.ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                name, options = ast.unparse(node.func), map(ast.unparse, node.keywords)
                options = list(options)
                assert name not in never, path
                assert name not in safe or safe[name] in options, path
                assert "shell=True" not in options, path


def png(path: Path, width: int, height: int) -> Path:
    """A picture of 1 x 1 pixels whose header says otherwise."""
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def jpeg(path: Path, width: int, height: int) -> Path:
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    path.write_bytes(content)
    return path


# The larger one is refused by Pillow itself, the smaller one is let through with a warning.
@pytest.mark.parametrize("size", [(10_000, 9_000), (60_000, 60_000)])
@pytest.mark.parametrize("make", [png, jpeg])
def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path, make, size):
    path = make(tmp_path / f"a.{make.__name__}", *size)
    number = str(size[0] * size[1])
    with pytest.raises(Unreadable, match=number) as one:
        pictures.decode(path.read_bytes(), "L", "a")
    with pytest.raises(Unreadable, match=number) as other:
        image_files.image(path, 1)
    assert "\n" not in f"{one.value}{other.value}"


def test_an_array_file_cannot_claim_more_than_it_has_or_more_than_a_picture(tmp_path):
    tracemalloc.start()
    claimed = tmp_path / "claimed.npy"
    with claimed.open("wb") as file:
        header = {"shape": (9000, 8000), "fortran_order": False, "descr": "<f8"}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(Unreadable, match="found no readable file"):
        image_files.image(claimed, 1)
    sparse = tmp_path / "sparse.npy"  # the disk holds nothing of it
    np.lib.format.open_memmap(sparse, "w+", np.uint8, (10_000, 9_000)).flush()
    for read in (lambda: image_files.image(sparse, 1), lambda: image_files.mask(sparse, 2)):
        with pytest.raises(Unreadable, match="90000000 pixels, more than 80 million"):
            read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize(
    ("syntax", "rows", "expected"),
    [
        (ExplicitVRLittleEndian, 65_000, "4225000000 pixels, more than 80 million"),
        (DeflatedExplicitVRLittleEndian, 1, "deflated, which may unpack to any size"),
    ],
)
def test_a_dicom_file_that_would_fill_the_memory_is_not_decoded(tmp_path, syntax, rows, expected):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows = dataset.Columns = rows
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(2)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Unreadable, match=expected):
        image_files.image(tmp_path / "a.dcm", 1)


def test_a_matlab_array_of_absurd_size_is_not_read(tmp_path):
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.ones((3, 5, 2), np.uint8)
    for name, value in (("images", cells[0, 0]), ("AllSubjects", cells)):
        path = tmp_path / ("Subject_01.mat" if name == "images" else "UMN.mat")
        scipy.io.savemat(path, {name: value})
        content = path.read_bytes()
        dimensions = struct.pack("<iii", 3, 5, 2)
        assert dimensions in content
        path.write_bytes(content.replace(dimensions, struct.pack("<iii", 30_000, 50_000, 20_000)))
    for read in (
        lambda: list(matlab.cells(path, "AllSubjects")),
        lambda: list(duke.read(tmp_path, {"grader": 1})),
        lambda: matlab.shapes(tmp_path / "Subject_01.mat"),
    ):
        with pytest.raises(UserError, match=r"of shape \(30000, 50000, 20000\), expected at most"):
            read()
