"""Files of images and masks: every format and depth, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dpmedbench import image_files
from dpmedbench.datasets.base import IGNORE, Unreadable
from dpmedbench.errors import UserError

SIZE = (40, 50)


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(np.uint16, (4, 5), elements=st.integers(0, 4095)),
    white=st.sampled_from([None, 4095, 5000]),
    suffix=st.sampled_from(["png", "tif", "npy"]),
)
def test_sixteen_bits_are_scaled_by_a_constant(tmp_path_factory, array, white, suffix):
    path = tmp_path_factory.mktemp("deep") / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else Image.fromarray(array).save(path)
    found = image_files.image(path, 1, white)
    exact = array.astype(float) * 255 / (white or 65535)
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5 + 1e-9


def saved(tmp_path: Path, array: np.ndarray, name: str = "a.npy") -> Path:
    path = tmp_path / name
    np.save(path, array) if name.endswith("npy") else Image.fromarray(array).save(path)
    return path


def test_every_format_and_depth(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, SIZE, np.uint8)
    colour = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    luma = colour @ [0.299, 0.587, 0.114]
    for name in ("g.png", "g.tif", "g.npy"):
        np.testing.assert_array_equal(image_files.image(saved(tmp_path, grey, name), 1), grey)
        three = image_files.image(tmp_path / name, 3)
        np.testing.assert_array_equal(three, np.repeat(grey[..., None], 3, axis=2))
    for name in ("c.png", "c.tif", "c.npy"):
        np.testing.assert_array_equal(image_files.image(saved(tmp_path, colour, name), 3), colour)
        assert np.abs(image_files.image(tmp_path / name, 1) - luma).max() < 1
    smooth = np.tile(np.linspace(0, 255, 50).astype(np.uint8), (40, 1))
    found = image_files.image(saved(tmp_path, smooth, "s.jpg"), 1)
    assert np.abs(found.astype(int) - smooth).max() < 12
    np.testing.assert_array_equal(
        image_files.image(saved(tmp_path, grey / 255), 1), grey
    )  # fractions
    np.testing.assert_array_equal(image_files.image(saved(tmp_path, grey > 99), 1) > 0, grey > 99)
    Image.fromarray(grey).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(image_files.image(tmp_path / "p.png", 1), grey)
    alpha = np.dstack([colour, np.full(SIZE, 7, np.uint8)])
    np.testing.assert_array_equal(image_files.image(saved(tmp_path, alpha, "a.png"), 3), colour)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_picture_is_turned_as_it_is_shown(tmp_path, suffix, orientation):
    array = np.tile(np.linspace(0, 255, 50).astype(np.uint8), (40, 1))
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(path, exif=exif)
    shown = np.rot90(array, {1: 0, 3: 2, 6: -1}[orientation])
    found = image_files.image(path, 1)
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).max() < 12
    if suffix != "jpg":
        np.testing.assert_array_equal(image_files.mask(path, 256, range(256)), shown)


def test_white_does_not_go_with_colours_of_16_bits(tmp_path):
    pixels = b"".join(b"\0" + np.full(15, 4095, ">u2").tobytes() for _ in range(4))
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with path.open("ab") as file:
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data)
            file.write(struct.pack(">I", zlib.crc32(kind + data)))
    assert image_files.image(path, 3).max() == 4095 * 255 // 65535
    with pytest.raises(UserError, match="found colours of 16 bits, of which the upper 8"):
        image_files.image(path, 3, 4095)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (
            np.array([[0, -1]], np.int16),
            "found values from -1 to 0 of type int16, expected 0 to 65535; save it with a constant",
        ),
        (
            np.array([[0.0, 1.5]]),
            "values from 0 to 1.5 of type float64, expected 0 to 1; set white",
        ),
        (np.array([[0.0, np.nan]]), "values from nan to nan"),
        (np.zeros((2, 3, 4), np.uint8), r"shape \(2, 3, 4\), expected real numbers in \(rows, "),
        (np.zeros(3, np.uint8), r"shape \(3,\)"),
        (np.full((2, 3), 1 + 1j), "found an array of type complex128"),
        (np.full((2, 3), "a"), "found an array of type <U1"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\)"),
        (np.array([None]), "no readable file"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, expected):
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(UserError, match=expected) as caught:
        image_files.image(path, 1)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_no_pictures_are_unreadable(tmp_path):
    path = tmp_path / "a.png"
    for content in (b"", b"text", b"\x93NUMPY", bytes(128) + b"DICM"):
        path.write_bytes(content)
        with pytest.raises(Unreadable, match="found no readable file"):
            image_files.image(path, 1)
    pages = [Image.fromarray(np.zeros(SIZE, np.uint8))] * 3
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="found 3 pages"):
        image_files.image(tmp_path / "a.tif", 1)


@settings(max_examples=60, deadline=None)
@given(
    truth=hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, IGNORE])),
    values=st.one_of(st.none(), st.lists(st.integers(0, 254), min_size=3, max_size=3, unique=True)),
    suffix=st.sampled_from(["png", "tif", "npy"]),
)
def test_mask_values_become_classes(tmp_path_factory, truth, values, suffix):
    meaning = np.full(256, IGNORE, np.uint8)
    meaning[:3] = values or [0, 1, 2]
    path = saved(tmp_path_factory.mktemp("mask"), meaning[truth], f"a.{suffix}")
    np.testing.assert_array_equal(image_files.mask(path, 3, values), truth)


def test_masks_that_cannot_be_told_are_refused(tmp_path):
    black_and_white = saved(tmp_path, np.array([[0, 255]], np.uint8), "a.png")
    with pytest.raises(UserError, match=r"values 0 and 255.* set mask_values to \[0, 255\], or"):
        image_files.mask(black_and_white, 2)
    assert image_files.mask(black_and_white, 2, [0, 255]).tolist() == [[0, 1]]
    assert image_files.mask(black_and_white, 2, [0, 1]).tolist() == [[0, IGNORE]]
    assert image_files.mask(black_and_white, 3).tolist() == [[0, IGNORE]]
    with pytest.raises(UserError, match="found the value 7, expected 0, 1"):
        image_files.mask(saved(tmp_path, np.array([[0, 7]])), 2)
    with pytest.raises(UserError, match="found the value 256"):
        image_files.mask(saved(tmp_path, np.array([[0, 256]])), 2)
    for other in (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)):
        with pytest.raises(UserError, match="one whole number a pixel"):
            image_files.mask(saved(tmp_path, other), 2)
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "p.png")
    assert image_files.mask(tmp_path / "p.png", 3).tolist() == [[0, 1, 2]]
    assert image_files.mask(saved(tmp_path, np.eye(2, dtype=bool)), 2).tolist() == [[1, 0], [0, 1]]


def test_masks_of_1_bit_are_those_of_8_bits(tmp_path):
    drawn = Image.fromarray(np.array([[0, 255]], np.uint8))
    for mode in ("1", "L"):
        drawn.convert(mode).save(tmp_path / f"{mode}.png")
        assert image_files.mask(tmp_path / f"{mode}.png", 2, [0, 255]).tolist() == [[0, 1]]
        assert image_files.mask(tmp_path / f"{mode}.png", 2, [255, 0]).tolist() == [[1, 0]]
    assert image_files.mask(tmp_path / "1.png", 2).tolist() == [[0, 1]]
    assert image_files.mask(tmp_path / "1.png", 2, [1, 0]).tolist() == [[1, 0]]
    assert image_files.mask(tmp_path / "1.png", 3, [0, 1, 255]).tolist() == [[0, 1]]


def dicom(path: Path, stored: np.ndarray, bits: int = 12, **tags) -> Path:
    """A DICOM file of the stored values, uncompressed."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def shown(path: Path) -> np.ndarray:
    return image_files.image(path, 1).astype(int)


def test_dicom_is_read_as_it_asks_to_be_shown(tmp_path):
    pytest.importorskip("pydicom")
    path = tmp_path / "IM0001"  # no suffix, as scanners name them
    ramp = np.linspace(0, 4095, 60).astype(np.uint16).reshape(6, 10)
    whole = np.rint(ramp * (255 / 4095))
    np.testing.assert_array_equal(shown(dicom(path, ramp)), whole)
    inverted = shown(dicom(path, ramp, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, 255 - whole)

    # Hounsfield units and a window of them, by the linear function of PS3.3 C.11.2.1.2.1
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    units = ramp.astype(float) - 1024
    window = np.clip(((units - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert np.abs(shown(dicom(path, ramp, **tags)) - window).max() <= 0.5 + 1e-6
    several = tags | {"WindowCenter": [40, 500], "WindowWidth": [400, 2000]}
    assert np.abs(shown(dicom(path, ramp, **several)) - window).max() <= 0.5 + 1e-6

    signed = np.array([[-2048, 0, 2047]], np.int16)
    np.testing.assert_array_equal(shown(dicom(path, signed)), [[0, 128, 255]])
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    np.testing.assert_array_equal(image_files.image(dicom(path, colour, 8), 3), colour)


def test_a_dicom_mask_has_the_numbers_that_are_stored(tmp_path):
    """As it is shown, a few classes in 12 bits are all black."""
    pytest.importorskip("pydicom")
    stored = np.array([[0, 1, 8]], np.uint16)
    for tags in (
        {},
        {"WindowCenter": 1, "WindowWidth": 2},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ):
        assert image_files.mask(dicom(tmp_path / "m", stored, **tags), 9).tolist() == [[0, 1, 8]]


def test_dicom_that_is_no_plain_image_is_refused(tmp_path):
    pytest.importorskip("pydicom")
    ramp = np.arange(12, dtype=np.uint16).reshape(3, 4)
    path = tmp_path / "a.dcm"
    for tags, expected in (
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a palette"),
        ({"RescaleSlope": -1, "RescaleIntercept": 0}, "the rescale slope -1"),
    ):
        with pytest.raises(UserError, match=f"found a DICOM file with {expected}"):
            image_files.image(dicom(path, ramp, **tags), 1)
    whole = dicom(path, ramp).read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(Unreadable, match="found no readable file"):
        image_files.image(path, 1)
