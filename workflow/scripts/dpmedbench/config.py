"""The configuration: every key, its default, its unit and its sentence.

The JSON schema, the commented `config/config.yaml` and the key table in `config/README.md` are
made from these models by `dpmedbench.config_files`. This module imports nothing heavy: the
Snakefile reads it on every call.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpmedbench import datasets, figures, mechanisms, models
from dpmedbench.errors import UserError
from dpmedbench.privacy.plan import check_size

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Positive = Annotated[float, Field(gt=0)]
Size = tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]]


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PatientLists(Section):
    """Patients named one by one."""

    train: list[str] = Field(min_length=1, description="Patients to train on.")
    val: list[str] = Field(min_length=1, description="Patients to validate on.")
    test: list[str] = Field(min_length=1, description="Patients to test on.")


class Split(Section):
    """How patients are divided; a patient is never in two splits of one fold."""

    method: Literal["ratio", "lists", "kfold"] = Field(
        "ratio",
        description="ratio: shares of the patients; lists: patients by name; kfold: every "
        "patient is tested once, the next fold validates.",
    )
    ratios: tuple[Positive, Positive, Positive] = Field(
        (0.8, 0.1, 0.1), description="Shares of train, val and test; used by method ratio."
    )
    lists: PatientLists | None = Field(
        None, description="Patients of train, val and test; used by method lists."
    )
    folds: int = Field(1, ge=1, description="Number of folds; at least 3 for method kfold.")
    seed: int = Field(0, ge=0, description="Seed of the shuffle of the patients.")

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if self.method == "ratio" and not math.isclose(sum(self.ratios), 1.0):
            raise ValueError(f"ratios sum to {sum(self.ratios):g}, expected 1")
        if (self.method == "lists") != (self.lists is not None):
            raise ValueError("lists goes with method lists, and only with it")
        if self.method == "kfold" and self.folds < 3:
            raise ValueError(f"method kfold needs folds >= 3, found {self.folds}")
        if self.method != "kfold" and self.folds != 1:
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
    path: str | None = Field(None, description="The raw folder; used by source path.")
    grader: Literal[1, 2] = Field(1, description="Whose annotation is the truth.")
    image_size: Size = Field((224, 224), description="Rows and columns to train at, pixels.")
    split: Split = Field(Split(), description="How patients are divided.")
    phantom: Phantom = Field(Phantom(), description="Used by source phantom.")

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        if self.loader not in datasets.names():
            raise ValueError(f"loader is {self.loader!r}, allowed are {datasets.names()}")
        if (self.source == "path") != (self.path is not None):
            raise ValueError("path goes with source path, and only with it")
        if self.source == "download" and datasets.load(self.loader).SPEC.download is None:
            raise ValueError(f"{self.loader} has no official download; use source path")
        return self

    @property
    def nominal_training_records(self) -> int | None:
        """Training records to be expected, None where only the data can tell."""
        if self.source == "path":
            return None
        if self.source == "phantom":
            patients, records = self.phantom.patients, self.phantom.scans
        else:
            spec = datasets.load(self.loader).SPEC
            patients, records = spec.nominal_patients, spec.nominal_records_per_patient
        if self.split.method == "lists":
            return len(self.split.lists.train) * records
        if self.split.method == "kfold":
            return (patients - 2 * (patients // self.split.folds)) * records
        return math.ceil(patients * self.split.ratios[0]) * records


class Model(Section):
    """A network."""

    network: str = Field(
        "", description="The architecture, a module of models/; left out: the key."
    )
    features: list[Annotated[int, Field(ge=1)]] = Field(
        [32, 64, 128, 256, 512],
        min_length=2,
        description="Channels of each level, finest first; their number is the depth.",
    )
    num_groups: int = Field(8, ge=1, description="Groups of GroupNorm; divides every feature.")

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.network not in models.names():
            raise ValueError(f"network is {self.network!r}, allowed are {models.names()}")
        odd = [width for width in self.features if width % self.num_groups]
        if odd:
            raise ValueError(f"num_groups {self.num_groups} does not divide features {odd}")
        return self


class Mechanism(Section):
    """A way of training: engine x clipping function x clipping style."""

    engine: str = Field(description="What computes the gradients: a module of mechanisms/.")
    clipping: Literal["none", "abadi"] = Field(
        "none", description="Clipping function; abadi: min(1, R / norm)."
    )
    clipping_style: Literal["none", "flat", "per_layer"] = Field(
        "none", description="flat: one norm over all parameters; per_layer: one a tensor."
    )
    max_grad_norm: Positive = Field(1.0, description="Clipping threshold R.")
    layer_thresholds: Literal["scaled", "same"] = Field(
        "scaled",
        description="per_layer only. scaled: R/sqrt(L) for each of L tensors, sensitivity R; "
        "same: R for each, sensitivity R*sqrt(L), as in the published study.",
    )
    learning_rate: Positive | None = Field(
        None, description="Learning rate of this mechanism; null: that of training."
    )

    @model_validator(mode="after")
    def _possible(self) -> Mechanism:
        mechanisms.check(self.engine, self.clipping, self.clipping_style)
        return self

    @property
    def private(self) -> bool:
        return mechanisms.capabilities(self.engine).private


class Privacy(Section):
    """What is promised, to whom."""

    unit: Literal["image"] = Field(
        "image", description="Whose presence is hidden: one image (not one patient)."
    )
    neighbouring: Literal["add_remove"] = Field(
        "add_remove", description="Neighbouring data sets differ by one unit added or removed."
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="delta of (epsilon, delta)-DP.")
    accountant: Literal["prv", "rdp", "gdp", "pld"] = Field(
        "prv", description="Whose epsilon is reported first and calibrated; all are recorded."
    )


class Training(Section):
    """One training loop serves every mechanism."""

    epochs: int = Field(100, ge=1, description="Passes over the training set (expected).")
    batch_size: int = Field(
        10, ge=1, description="Logical batch; for private cells the expected size."
    )
    physical_batch_size: int | None = Field(
        None, ge=1, description="Most images at once on the device; null: batch_size."
    )
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = Field("adam", description="Optimiser.")
    learning_rate: Positive = Field(5e-4, description="Learning rate.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Learning rate over the steps; cosine falls to 0."
    )
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd and rmsprop.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the forward pass; bfloat16 is autocast."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Report the exponential moving average of the weights; null: do not."
    )
    selection: Literal["last", "best_validation"] = Field(
        "last", description="Which epoch is reported; best_validation is marked not private."
    )
    checkpoint_every: int = Field(1, ge=1, description="Epochs between checkpoints.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: CUDA where there is one, else CPU."
    )


class Grid(Section):
    """Cells: the product of the lists."""

    datasets: list[Name] = Field(min_length=1, description="Keys of datasets.")
    models: list[Name] = Field(min_length=1, description="Keys of models.")
    mechanisms: list[Name] = Field(min_length=1, description="Keys of mechanisms.")
    noise_multiplier: list[Positive] = Field(
        [], description="Noise levels sigma of the private mechanisms."
    )
    target_epsilon: list[Positive] = Field(
        [], description="Budgets instead of noise levels; sigma is calibrated to each."
    )
    folds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Folds, counted from 0."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="Seeds of weights, sampling and noise."
    )


class Study(Section):
    """A study: what is compared on what."""

    study: Name = Field(description="Name; results go to results/<study>.")
    title: str = Field("", description="Title of the report.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="Datasets by name.")
    models: dict[Name, Model] = Field(min_length=1, description="Networks by name.")
    mechanisms: dict[Name, Mechanism] = Field(min_length=1, description="Ways of training by name.")
    privacy: Privacy = Field(Privacy(), description="What is promised.")
    training: Training = Field(Training(), description="How every cell is trained.")
    grids: list[Grid] = Field(min_length=1, description="Cells to run; several are joined.")
    figures: list[str] | None = Field(None, description="Figures to draw; null: all.")

    @model_validator(mode="before")
    @classmethod
    def _names_are_defaults(cls, value: Any) -> Any:
        """Let the key of a dataset or model stand for its loader or network."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for section, key in (("datasets", "loader"), ("models", "network")):
            entries = value.get(section)
            if isinstance(entries, dict):
                value[section] = {
                    name: {key: name, **(entry or {})} if isinstance(entry, dict | None) else entry
                    for name, entry in entries.items()
                }
        return value

    @model_validator(mode="after")
    def _possible(self) -> Study:
        unknown = sorted(set(self.figures or []) - set(figures.catalog()))
        if unknown:
            raise ValueError(f"figures: found {unknown}, allowed are {sorted(figures.catalog())}")
        for index, grid in enumerate(self.grids):
            self._check_grid(f"grids[{index}]", grid)
        return self

    def _check_grid(self, where: str, grid: Grid) -> None:
        for section in ("datasets", "models", "mechanisms"):
            known = sorted(getattr(self, section))
            for name in getattr(grid, section):
                if name not in known:
                    raise ValueError(f"{where}.{section}: found {name!r}, allowed are {known}")
        private = [name for name in grid.mechanisms if self.mechanisms[name].private]
        if grid.noise_multiplier and grid.target_epsilon:
            raise ValueError(
                f"{where}: found both noise_multiplier and target_epsilon, allowed is one of them; "
                "use two grids"
            )
        if private and not (grid.noise_multiplier or grid.target_epsilon):
            raise ValueError(
                f"{where}: mechanism {private[0]} needs noise_multiplier or target_epsilon"
            )
        for name in grid.datasets:
            dataset = self.datasets[name]
            for fold in grid.folds:
                if fold >= dataset.split.folds:
                    raise ValueError(
                        f"{where}.folds: found {fold}, but datasets.{name}.split.folds is "
                        f"{dataset.split.folds}; allowed are 0 to {dataset.split.folds - 1}"
                    )
            records = dataset.nominal_training_records
            if records is not None and private:
                check_size(records, self.training.batch_size, self.privacy.delta, name)


def load(values: dict) -> Study:
    """Validate a configuration.

    Raises:
        UserError: naming the first key that is wrong, what was found and what is allowed.
    """
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise UserError("config: " + "; ".join(map(_sentence, error.errors()))) from None


def _sentence(error: dict) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; see config/README.md for the keys allowed"
    if error["type"] == "missing":
        return f"{key}: missing; see config/README.md"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: found {error['input']!r}, {message[0].lower()}{message[1:]}"
