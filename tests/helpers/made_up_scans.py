"""Made-up scans with their masks, and a dataset of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from dpmedbench.datasets.base import IGNORE

CLASSES = {
    "duke": ("outside", "NFL", "GCL-IPL", "INL", "OPL", "ONL-ISM", "ISE", "OS-RPE", "fluid"),
    "umn": ("no fluid", "fluid"),
}


def scan(
    dataset: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A layered picture (H, W) uint8 and its mask, with fluid and a strip that is not graded."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    x = columns / width
    top = height * (
        0.3 + 0.05 * np.sin(5 * x + rng.uniform(0, 6)) + 0.1 * np.exp(-40 * (x - 0.5) ** 2)
    )
    depth = (rows - top) / (0.055 * height)
    layer = np.where((depth >= 0) & (depth < 7), np.floor(depth) + 1, 0).astype(np.uint8)
    blob = ((x - rng.uniform(0.3, 0.7)) / 0.09) ** 2 + ((depth - 4) / 1.1) ** 2 < 1
    if dataset == "umn":
        mask = blob.astype(np.uint8)
    else:
        mask = np.where(blob, 8, layer).astype(np.uint8)
        mask[:, : width // 16] = IGNORE
    brightness = np.array([18, 190, 120, 90, 130, 70, 160, 220])[layer]
    brightness = np.where(blob, 12, brightness)
    image = np.clip(brightness * rng.gamma(6, 1 / 6, size), 0, 255).astype(np.uint8)
    return image, mask


def scans(
    dataset: str, count: int, size: tuple[int, int], fold: int = 0
) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """(record, patient, image, mask) of the test scans of a fold."""
    for index in range(count):
        record = index + 100 * fold
        yield (
            record,
            f"Subject_{1 + record % 3:02d}",
            *scan(dataset, size, np.random.default_rng(record)),
        )


def write_store(path: Path, dataset: str, records: int, size: tuple[int, int]) -> None:
    """A dataset's HDF5."""
    made = list(scans(dataset, records, size))
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([image for _, _, image, _ in made])
        file["masks"] = np.stack([mask for *_, mask in made])
        file["patient"] = [patient for _, patient, *_ in made]
        file["split"] = [""] * records
        file["source"] = [f"{patient}/B-scan {record}" for record, patient, *_ in made]
        file.attrs.update(
            dataset=dataset,
            title={"duke": "Duke DME", "umn": "UMN DME"}[dataset],
            task="segmentation",
            classes=json.dumps(CLASSES[dataset]),
            boundaries=8 if dataset == "duke" else 0,
            ignore_index=IGNORE,
            digest="0" * 64,
            provenance="{}",
        )
