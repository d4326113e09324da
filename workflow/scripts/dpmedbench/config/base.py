"""What all sections of the configuration share."""

from __future__ import annotations

import difflib
import os
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)


def _location(path: str) -> str:
    """The path, with the folder that a ~ stands for."""
    if braces := set("{}") & set(path):
        raise ValueError(
            f"found {path!r}, where Snakemake takes {min(braces)} for a wildcard; rename the "
            "folder, or make a link to it without braces"
        )
    return os.path.expanduser(path)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
CONSTANT = "constant"  # `results.CONSTANT`, whose module takes long to import
Positive = Annotated[float, Field(gt=0)]
Location = Annotated[str, Field(min_length=1), AfterValidator(_location)]
Size = tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]]


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        """Name the keys there are, and the one that was probably meant, at a key that is none."""
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                meant = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                guess = f", did you mean {meant[0]}?" if meant else ";"
                raise ValueError(
                    f"found the key {key}, which there is not{guess} allowed are "
                    f"{', '.join(cls.model_fields)}"
                )
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what YAML reads from yes, no, on and off where it would count as 1 or 0."""
        entries = value.values() if isinstance(value, dict) else value
        entries = list(entries) if isinstance(value, dict | list | tuple) else [value]
        wrong = [entry for entry in entries if isinstance(entry, bool)]
        if wrong and _is_number(cls.model_fields[info.field_name].annotation):
            raise ValueError(f"found {wrong[0]} (yes, on, true, ... in YAML), expected a number")
        return value


def _is_number(annotation: object) -> bool:
    """Whether numbers are meant, alone, in a list or among other values."""
    return (
        annotation in (int, float)
        or type(annotation) is int  # of a Literal
        or any(map(_is_number, get_args(annotation)))
    )
