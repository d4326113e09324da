"""Ways of training, and what is promised of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dpmedbench import mechanisms
from dpmedbench.config.base import Positive, Section
from dpmedbench.privacy import schedules
from dpmedbench.privacy.plan import validity


class Sparsification(Section):
    """Random sparsification of gradients (Zhu & Blaschko 2021)."""

    final_rate: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share of coordinates left out in the last epoch; grows from 0.",
    )
    refresh: int = Field(2, ge=1, description="How many times an epoch new coordinates are drawn.")


class NoiseSchedule(Section):
    """How the noise multiplier changes over the epochs."""

    kind: str = Field(
        "constant", description="constant, exponential, step, linear, cosine, or one you add."
    )
    options: dict[str, float | int] = Field(
        {}, description="exponential: gamma; step: gamma, every (epochs); linear, cosine: final."
    )


class Adaptive(Section):
    """A clipping threshold that follows a quantile of the norms (Andrew et al. 2021)."""

    target: float = Field(0.5, gt=0, lt=1, description="Share of gradients to leave unclipped.")
    learning_rate: Positive = Field(0.2, description="How fast the threshold moves.")
    count_noise: Positive | None = Field(
        None, description="Noise on the count of clipped gradients; null: the noise multiplier."
    )


class Mechanism(Section):
    """A way of training: engine x mode x clipping function x style, and what goes on top."""

    engine: str = Field(description="What computes the gradients: a module of mechanisms/.")
    mode: str | None = Field(None, description="The engine's way of doing it; null: its first.")
    clipping: Literal["none", "abadi", "automatic", "adaptive"] = Field(
        "none",
        description="Clipping function; abadi: min(1, R / norm); automatic: R / (norm + 0.01); "
        "adaptive: abadi with an R that follows the norms.",
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
    adaptive: Adaptive = Field(Adaptive(), description="Used by clipping adaptive.")
    sparsification: Sparsification | None = Field(
        None, description="Random sparsification of the gradients; null: none."
    )
    noise_schedule: NoiseSchedule = Field(
        NoiseSchedule(), description="The noise over the epochs; the accountant is fed each step's."
    )
    learning_rate: Positive | None = Field(
        None, description="Learning rate of this mechanism; null: that of training."
    )

    @model_validator(mode="after")
    def _possible(self) -> Mechanism:
        mechanisms.check(
            self.engine,
            self.mode,
            self.clipping,
            self.clipping_style,
            self.sparsification is not None,
        )
        schedules.factors(self.noise_schedule.kind, 1, **self.noise_schedule.options)
        if not self.private and self.noise_schedule != NoiseSchedule():
            raise ValueError(f"noise_schedule needs a private engine, found {self.engine}")
        return self

    @property
    def private(self) -> bool:
        """Whether gradients are clipped and noised."""
        return mechanisms.capabilities(self.engine).private

    @property
    def local(self) -> bool:
        """Whether the images it trains on are perturbed."""
        return mechanisms.capabilities(self.engine).local


class Privacy(Section):
    """What is promised, to whom."""

    unit: Literal["image"] = Field(
        "image", description="Whose presence is hidden: one image (not one patient)."
    )
    sampling: Literal["poisson", "fixed_size", "shuffled"] = Field(
        "poisson",
        description="How batches are drawn. poisson: each record independently; fixed_size: a "
        "random subset each step (accountant rdp); shuffled: an epoch is a partition, no "
        "amplification.",
    )
    neighbouring: Literal["add_remove", "replace_one", "zero_out"] = Field(
        "add_remove",
        description="Neighbouring data sets differ by one unit added or removed, replaced, or made "
        "to count nothing. fixed_size takes replace_one; shuffled takes replace_one, zero_out.",
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="delta of (epsilon, delta)-DP.")
    accountant: Literal["prv", "rdp", "gdp", "pld"] = Field(
        "prv",
        description="Whose epsilon is reported first and calibrated; all are recorded. gdp is an "
        "approximation that may be below what is spent.",
    )
    secure_rng: bool = Field(
        False,
        description="Batches and noise from a cryptographic generator with a key of the operating "
        "system: no run can be repeated. false: seeded, for research.",
    )

    @model_validator(mode="after")
    def _accountable(self) -> Privacy:
        if reason := validity(self.sampling, self.neighbouring, self.accountant):
            raise ValueError(reason)
        return self
