"""Networks."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dpmedbench import models, pretrained
from dpmedbench.config.base import Location, Section


def _of_networks(option: str) -> str:
    """The defaults of an option of the networks, in words."""
    found = {name: models.defaults(name) for name in models.names()}
    values = [f"{name} {json.dumps(of[option])}" for name, of in found.items() if option in of]
    return f"Left out: {', '.join(values)}."


class Model(Section):
    """A network; a key that is left out or null has the network's own default."""

    network: str = Field(
        "", description="The architecture, a module of models/; left out: the key."
    )
    features: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="Channels of each level or stage, finest first; their number is the depth. "
        + _of_networks("features"),
    )
    num_groups: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Groups of GroupNorm; divides every feature. " + _of_networks("num_groups"),
    )
    deep_supervision: bool | None = Field(
        None,
        description="A loss at every node of full resolution. " + _of_networks("deep_supervision"),
    )
    norm: Literal["group", "frozen_batch"] | None = Field(
        None,
        description="group: GroupNorm; frozen_batch: BatchNorm fixed at the statistics, scale and "
        "shift of the weights file (none: no normalisation). " + _of_networks("norm"),
    )
    weights: Literal["none", "imagenet"] | None = Field(
        None,
        description="Weights at the start; none: random; imagenet: torchvision's, features as by "
        "default. " + _of_networks("weights"),
    )
    weights_file: Location | None = Field(
        None,
        description="File of the ImageNet weights, .pth or .safetensors; null: the official one, "
        f"downloaded to {pretrained.PATH}.",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_network(cls, value: Any) -> Any:
        """Fill in what is left out or null."""
        if not isinstance(value, dict) or value.get("network") not in models.names():
            return value
        usual = models.defaults(value["network"])
        given = {key: entry for key, entry in value.items() if entry is not None}
        return {key: usual[key] for key in cls.model_fields if key in usual} | given

    @model_validator(mode="after")
    def _possible(self) -> Model:
        options = self.model_dump()
        models.check(options.pop("network"), **options)
        return self

    @model_serializer(mode="wrap")
    def _applicable(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What `models.build` takes: the keys of the network, without those of others."""
        return {key: entry for key, entry in dump(self).items() if entry is not None}
