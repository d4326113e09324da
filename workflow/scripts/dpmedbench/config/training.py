"""The training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dpmedbench.config.base import Positive, Section


class Training(Section):
    """One training loop serves every mechanism."""

    epochs: int = Field(100, ge=1, description="Passes over the training set (expected).")
    batch_size: int = Field(
        10, ge=1, description="Logical batch; for private cells the expected size."
    )
    physical_batch_size: int | None = Field(
        None, ge=1, description="Most images at once in a pass of training; null: batch_size."
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
    checkpoint_seconds: int = Field(
        30,
        ge=0,
        description=(
            "Least time between checkpoints, each after an epoch: what may be lost with the job "
            "is that and an epoch. 0: one after each epoch."
        ),
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description=(
            "auto: CUDA, or the CPU on a machine without a GPU; in a scheduler's job, or where "
            "torch cannot use the GPU, that is an error. cpu: the CPU in any case."
        ),
    )
    cells_per_gpu: int = Field(
        1,
        ge=1,
        description=(
            "Cells that train at once on one GPU, whose times are then not to be compared; "
            "--resources gpu= counts cells, not GPUs."
        ),
    )
