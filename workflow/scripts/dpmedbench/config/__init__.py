"""The configuration: every key, its default, its unit and its sentence.

The JSON schema, the commented `config/config.yaml` and the key table in `config/README.md` are
made from these models by `dpmedbench.config_files`. Nothing here imports anything heavy: the
Snakefile reads it on every call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from dpmedbench import figures, mechanisms, models
from dpmedbench.config.base import CONSTANT, Name, Positive, Section
from dpmedbench.config.data import Dataset, Split
from dpmedbench.config.mechanism import Mechanism, Privacy
from dpmedbench.config.network import Model
from dpmedbench.config.training import Training
from dpmedbench.errors import UserError
from dpmedbench.privacy import accounting, schedules
from dpmedbench.privacy.plan import check_size

__all__ = [
    "Dataset",
    "Mechanism",
    "Privacy",
    "Section",
    "Split",
    "Study",
    "Training",
    "check_paths",
    "load",
]

# of pydantic's kinds of error, those that it tells in words of Python
EXPECTED = {
    "string_type": "expected a text; put it in quotes",
    "string_pattern_mismatch": "expected letters, digits, - and _, the first a letter or digit",
    "list_type": "expected a list, in [ ] or a line each behind -",
    "tuple_type": "expected a list, in [ ] or a line each behind -",
    "dict_type": "expected keys with values; leave it out where there are none",
    "model_type": "expected keys with values; leave it out where there are none",
}


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
    beta: list[Positive] = Field(
        [], description="Noise levels of the local mechanisms: scale beta on pixels in [0, 1]."
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
    unfinished: bool = Field(
        False,
        description="Train nothing: report the cells that are finished, and name the others. "
        "For the command line, `--config unfinished=true`.",
    )

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
        if CONSTANT in self.mechanisms:
            raise ValueError(
                f"mechanisms: found {CONSTANT!r}, which the tables call the constant predictor; "
                "name it otherwise, here and in grids"
            )
        unknown = sorted(set(self.figures or []) - set(figures.catalog()))
        if unknown:
            raise ValueError(f"figures: found {unknown}, allowed are {sorted(figures.catalog())}")
        for index, grid in enumerate(self.grids):
            self._check_grid(f"grids[{index}]", grid)
        for name, dataset in self.datasets.items():
            self._check_task(name, dataset)
        return self

    def _check_task(self, name: str, dataset: Dataset) -> None:
        """A network for another task is left out; where there is no other, that is not meant."""
        task = dataset.spec.task
        used = {model for grid in self.grids if name in grid.datasets for model in grid.models}
        if used and all(models.task(self.models[model].network) != task for model in used):
            key = f"set datasets.{name}.task, or " if "task" in dataset.options else ""
            raise ValueError(
                f"grids: dataset {name} is for {task}, but none of its models is "
                f"({', '.join(sorted(used))}); {key}name a model for {task}"
            )

    def _check_grid(self, where: str, grid: Grid) -> None:
        for section in ("datasets", "models", "mechanisms"):
            known = sorted(getattr(self, section))
            for name in getattr(grid, section):
                if name not in known:
                    raise ValueError(f"{where}.{section}: found {name!r}, allowed are {known}")
        private = [name for name in grid.mechanisms if self.mechanisms[name].private]
        for name in private:
            mechanism = self.mechanisms[name]
            schedule = mechanism.noise_schedule
            try:
                mechanisms.check_precision(
                    mechanism.engine, mechanism.mode, self.training.precision
                )
            except ValueError as error:
                raise ValueError(f"training.precision: mechanism {name}: {error}") from None
            try:
                schedules.factors(schedule.kind, self.training.epochs, **schedule.options)
            except ValueError as error:
                raise ValueError(f"mechanisms.{name}.noise_schedule: {error}") from None
        if grid.noise_multiplier and grid.target_epsilon:
            raise ValueError(
                f"{where}: found both noise_multiplier and target_epsilon, allowed is one of them; "
                "use two grids"
            )
        privacy = self.privacy
        if grid.target_epsilon and accounting.approximate(privacy.accountant, privacy.sampling):
            raise ValueError(
                f"{where}.target_epsilon: found privacy.accountant gdp, an approximation that may "
                "be below what is spent; use prv, rdp or pld"
            )
        if private and not (grid.noise_multiplier or grid.target_epsilon):
            raise ValueError(
                f"{where}: mechanism {private[0]} needs noise_multiplier or target_epsilon"
            )
        local = [name for name in grid.mechanisms if self.mechanisms[name].local]
        if local and not grid.beta:
            raise ValueError(f"{where}: mechanism {local[0]} needs beta")
        if grid.beta and not local:
            raise ValueError(
                f"{where}.beta: found {grid.beta}, but none of its mechanisms is local; leave it "
                "out or add a mechanism of engine local"
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


def check_paths(study: Study) -> None:
    """Raise UserError where there is nothing at a path that the configuration names."""
    for name, dataset in study.datasets.items():
        expected = "the folder or archive that holds the raw data"
        _check_path(f"datasets.{name}.path", dataset.path, dataset.optional, expected)
    for name, model in study.models.items():
        expected = "the file of the weights, or leave the key out for the official ones"
        _check_path(f"models.{name}.weights_file", model.weights_file, False, expected)


def _check_path(key: str, path: str | None, optional: bool, expected: str) -> None:
    try:
        absent = path is not None and not Path(path).exists()
    except OSError as error:
        raise UserError(
            f"config: {key}: found {path!r}, which cannot be looked at ({error.strerror}); give "
            f"{expected}, where you may read it"
        ) from None
    if absent and not optional:
        seen = "" if Path(path).is_absolute() else f" as seen from {Path.cwd()}"
        raise UserError(
            f"config: {key}: found {path!r}, where there is nothing{seen}; give {expected}"
        )


def _sentence(error: dict) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{key}: found nothing; give it as config/README.md says"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    expected = EXPECTED.get(error["type"], f"{message[0].lower()}{message[1:]}")
    return f"{key}: found {error['input']!r}, {expected}"
