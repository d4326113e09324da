"""Datasets: where they come from, how they are prepared and divided."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dpmedbench import datasets
from dpmedbench.config.base import Location, Positive, Section, Size
from dpmedbench.datasets.base import DatasetSpec, phantom_test_patients
from dpmedbench.split_methods import sizes

LOADER_OPTIONS = (
    "grader", "unreadable", "conflicts", "task", "manifest", "classes", "mask_values", "channels",
    "white",
)  # fmt: skip


class PatientLists(Section):
    """Patients named one by one."""

    train: list[str] = Field(min_length=1, description="Patients to train on.")
    val: list[str] = Field(min_length=1, description="Patients to validate on.")
    test: list[str] = Field(min_length=1, description="Patients to test on.")


class Split(Section):
    """How patients are divided; a patient is never in two splits of one fold."""

    method: Literal["ratio", "lists", "kfold", "official"] = Field(
        "ratio",
        description="ratio: shares of the patients; lists: patients by name; kfold: every "
        "patient is tested once, the next fold validates; official: the test set that the data "
        "name, the other patients shared out by ratios or, with folds, each validated on once.",
    )
    ratios: tuple[Positive, Positive, Positive] = Field(
        (0.8, 0.1, 0.1),
        description="Shares of train, val and test; used by method ratio, and by official, which "
        "leaves test out.",
    )
    lists: PatientLists | None = Field(
        None, description="Patients of train, val and test; used by method lists."
    )
    folds: int = Field(
        1, ge=1, description="Number of folds; at least 3 for method kfold, any for official."
    )
    seed: int = Field(0, ge=0, description="Seed of the shuffle of the patients.")

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if self.method == "ratio" and not math.isclose(sum(self.ratios), 1.0):
            raise ValueError(f"ratios sum to {sum(self.ratios):g}, expected 1")
        if (self.method == "lists") != (self.lists is not None):
            given = "with lists" if self.lists else "without lists"
            raise ValueError(
                f"found method {self.method} {given}; method lists needs them, others take none"
            )
        if self.method == "kfold" and self.folds < 3:
            raise ValueError(f"method kfold needs folds >= 3, found {self.folds}")
        if self.method in ("ratio", "lists") and self.folds != 1:
            raise ValueError(f"folds {self.folds} needs method kfold, found {self.method}")
        return self


class Phantom(Section):
    """Generated raw data in the official layout of the loader."""

    patients: int = Field(10, ge=3, description="Number of patients.")
    scans: int = Field(11, ge=1, description="Graded scans of each patient.")
    image_size: Size = Field((496, 768), description="Rows and columns of a raw scan, pixels.")
    seed: int = Field(0, ge=0, description="Seed of the anatomy and of the speckle.")


class Dataset(Section):
    """A dataset: where it comes from and how it is prepared."""

    loader: str = Field(
        "", description="The reader of its raw layout, a module of datasets/; left out: the key."
    )
    source: Literal["download", "phantom", "path"] = Field(
        "phantom",
        description="download: from the official address; phantom: generated; path: a folder.",
    )
    path: Location | None = Field(
        None, description="The raw folder, or its archive; used by source path."
    )
    optional: bool = Field(
        False,
        description="Where there is nothing at path: leave its cells out and say so; used by "
        "source path.",
    )
    grader: Literal[1, 2, "union", "intersection"] | None = Field(
        None, description="Whose annotation is the truth (duke 1, 2; umn); null: 1."
    )
    unreadable: Literal["stop", "leave_out"] | None = Field(
        None,
        description="What to do at a broken image (chest_xray, aptos, custom); leave_out counts "
        "them; null: stop.",
    )
    conflicts: Literal["drop", "keep"] | None = Field(
        None, description="What to do with equal images of unequal labels (aptos); null: drop."
    )
    task: Literal["segmentation", "classification"] | None = Field(
        None, description="What the manifest is for (custom); null: segmentation."
    )
    manifest: str | None = Field(
        None, description="The manifest, seen from the folder (custom); null: manifest.csv."
    )
    classes: list[str] | None = Field(
        None,
        description="Names of the classes, class 0 first (custom); null: the labels of the "
        "manifest in order.",
    )
    mask_values: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(
        None, description="What each class is in a mask file (custom); null: 0, 1, 2, ..."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1: images are read as grey; 3: as RGB (custom); null: 1."
    )
    white: Positive | None = Field(
        None,
        description="The value that becomes white in images of other than 8 bits (custom); null: "
        "65535, or 1 for fractions.",
    )
    class_weights: list[Positive] | None = Field(
        None,
        description="Weight of each class in the loss (classification); null: 1. Numbers, because "
        "a count of the training labels would not be covered by epsilon.",
    )
    image_size: Size = Field((224, 224), description="Rows and columns to train at, pixels.")
    noise_seed: int = Field(
        0, ge=0, description="Seed of the noise on its images, drawn once for all local cells."
    )
    split: Split = Field(Split(), description="How patients are divided.")
    phantom: Phantom = Field(Phantom(), description="Used by source phantom.")

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        if self.loader not in datasets.names():
            raise ValueError(f"loader is {self.loader!r}, allowed are {datasets.names()}")
        if (self.source == "path") != (self.path is not None):
            given = f"path {self.path!r}" if self.path else "no path"
            raise ValueError(
                f"found source {self.source} and {given}; a path needs source path, and source "
                "path a path"
            )
        if self.optional and self.source != "path":
            raise ValueError(f"optional goes with source path, found source {self.source}")
        spec = self.spec
        if self.source == "download" and spec.download is None:
            raise ValueError(f"{self.loader} has no official download; use source path")
        if self.class_weights is not None:
            if spec.task != "classification":
                raise ValueError(f"class_weights are for classification, {self.loader} is not")
            if spec.classes and len(self.class_weights) != len(spec.classes):
                raise ValueError(
                    f"class_weights has {len(self.class_weights)} numbers, expected one for each "
                    f"of {', '.join(spec.classes)}"
                )
        if self.split.method == "official" and not spec.nominal_test_patients:
            raise ValueError(
                f"split.method is official, but {self.loader} has no official test set"
            )
        return self

    @property
    def absent(self) -> bool:
        """Whether there is nothing at the path that it names, or nothing that may be read."""
        return self.path is not None and not os.access(self.path, os.R_OK)

    @property
    def options(self) -> dict[str, object]:
        """Every option that the loader takes, with its value."""
        return datasets.load(self.loader).SPEC.choose(
            {name: getattr(self, name) for name in LOADER_OPTIONS}
        )

    @property
    def spec(self) -> DatasetSpec:
        """What is true of the dataset before it is read; its task may be chosen."""
        spec = datasets.load(self.loader).SPEC
        return replace(spec, task=self.options.get("task", spec.task))

    @property
    def nominal_training_records(self) -> int | None:
        """Training records to be expected, None where only the data can tell."""
        spec, split = self.spec, self.split
        if self.source == "path":
            return None
        if self.source == "phantom":
            patients, records = self.phantom.patients, self.phantom.scans
            tested = phantom_test_patients(patients)
        else:
            patients, records = spec.nominal_patients, spec.nominal_records_per_patient
            tested = spec.nominal_test_patients
        if split.method == "lists":
            train = len(split.lists.train)
        elif split.method == "ratio":
            train = sizes(patients, split.ratios)[0]
        elif split.method == "kfold":
            train = patients - 2 * (patients // split.folds)
        else:
            rest = patients - tested
            validated = rest // split.folds if split.folds > 1 else sizes(rest, split.ratios[:2])[1]
            train = rest - validated
        return round(train * records)
