"""Stores of a toy dataset, with and without noise on their images."""

from __future__ import annotations

import dataclasses

import numpy as np

from dpmedbench import perturbation, store, store_writer
from dpmedbench.datasets.base import DatasetSpec, Record

SPEC = DatasetSpec(
    name="toy",
    title="Toy",
    task="segmentation",
    classes=("background", "a", "b"),
    channels=1,
    boundaries=0,
    nominal_patients=2,
    nominal_records_per_patient=2,
    download=None,
)
COLOUR = dataclasses.replace(SPEC, task="classification", channels=3)
LABELS = dataclasses.replace(SPEC, task="classification")


def records(spec, count=16, size=(24, 20)):
    rng = np.random.default_rng(0)
    for k in range(count):
        image = rng.integers(0, 256, size if spec.channels == 1 else (*size, 3), np.uint8)
        target = k % 3 if spec.task == "classification" else rng.integers(0, 3, size, np.uint8)
        yield Record(image, target, f"patient {k // 2}", f"scan {k}", split="test" * (k < 4))


def written(folder, spec=LABELS, size=(24, 20)):
    """A store, as preprocessing writes it."""
    path = folder / "toy.h5"
    store_writer.write(path, records(spec, size=size), spec, size, {"loader": "toy"})
    return path


def perturbed(source, name="noisy.h5", **noise):
    """The store with noise, as the rule makes it."""
    noise = {"dataset": "toy", "mode": "laplace", "beta": 1.0, "seed": 0} | noise
    path = source.with_name(name)
    draws = perturbation.randomness(**noise)
    perturbation.write(path, source, noise["mode"], noise["beta"], draws)
    return path


def images(path):
    with store.open_store(path) as opened:
        return opened.read(range(opened.num_records))[0].astype(int)
