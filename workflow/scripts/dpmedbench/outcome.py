"""What a finished cell writes: its weights, history, privacy, cost and manifest."""

from __future__ import annotations

import math
import statistics

import pyarrow as pa
import pyarrow.parquet as pq

from dpmedbench import cost, disclosure, mechanisms, provenance
from dpmedbench.files import replacing, write_json
from dpmedbench.privacy import local
from dpmedbench.privacy.accounting import ACCOUNTANTS
from dpmedbench.training import Trainer

SELECTION = {
    "last": "the last epoch; no selection",
    "best_validation": "the best epoch on validation data: not covered by epsilon",
}


def write(trainer: Trainer, outputs) -> None:
    """Write the outputs of a cell that ran.

    Args:
        outputs: has the paths `model`, `history`, `privacy`, `cost` and `manifest`.
    """
    from safetensors.torch import save_file

    name, last = identity(trainer), trainer.history[-1]["step"]
    with replacing(outputs.model) as temporary:
        save_file(trainer.weights(), temporary)
    with replacing(outputs.history) as temporary:
        pq.write_table(pa.Table.from_pylist(history(trainer)), temporary, compression="zstd")
    write_json(outputs.privacy, name | privacy(trainer))
    write_json(outputs.cost, name | costs(trainer))
    write_json(
        outputs.manifest,
        {
            "settings": trainer.settings,
            "data": {
                "digest": trainer.data.digest,
                "train": len(trainer.data.train[0]),
                "val": len(trainer.data.val[0]),
                "perturbation": trainer.data.perturbation,
                "splits": trainer.data.splits,
            },
            "code": trainer.code,
            "selection": SELECTION[trainer.options["selection"]],
            "randomness": trainer.sampler.randomness.title,
            "mechanism": trainer.engine.record(),
            **trainer.place,
            "disclosure": disclosure.note(trainer.settings, epsilons(trainer, last)["epsilon"]),
            **provenance.manifest(),
        },
    )


def identity(trainer: Trainer) -> dict:
    """The identity columns; the noise multiplier is the calibrated one, 0 where not private."""
    sigma = trainer.plan.noise_multiplier if trainer.plan else 0.0
    return trainer.settings["identity"] | {"noise_multiplier": sigma}


def history(trainer: Trainer) -> list[dict]:
    """A row an epoch: identity, what was measured, the hyper-parameters, epsilon."""
    options, plan = trainer.options, trainer.plan
    name = identity(trainer)
    name["target_epsilon"] = _number(name["target_epsilon"])
    fixed = {
        "weight_decay": options["weight_decay"],
        "batch_size": options["batch_size"],
        "epochs": options["epochs"],
        "max_grad_norm": trainer.settings["mechanism"]["max_grad_norm"] if plan else math.nan,
        "sample_rate": plan.sample_rate if plan else math.nan,
        "delta": plan.delta if plan else math.nan,
        "device": trainer.place["device"],
    }
    return [name | row | fixed | epsilons(trainer, row["step"]) for row in trainer.history]


def epsilons(trainer: Trainer, step: int) -> dict[str, float]:
    """Epsilon after `step` steps, of the configured accountant and of each; inf if not private."""
    if not trainer.plan:
        return {"epsilon": math.inf} | {f"epsilon_{name}": math.inf for name in ACCOUNTANTS}
    found = trainer.plan.epsilons(step)
    return {"epsilon": found[trainer.plan.accountant]} | {
        f"epsilon_{name}": value for name, value in found.items()
    }


def privacy(trainer: Trainer) -> dict:
    """The plan, what it costs, and what was seen of its being kept; nulls if not private.

    `noise_std` is null too where it changes from step to step.
    """
    plan, observed = trainer.plan, trainer.observed
    sparsified = trainer.settings["mechanism"]["sparsification"]
    steady = plan and not plan.noise_factors and plan.count_noise is None
    promised = {
        "unit": plan and plan.unit,
        "sampling": plan and plan.sampling,
        "neighbouring": plan and plan.neighbouring,
        "accountant": plan and plan.accountant,
        "delta": plan and plan.delta,
        "num_records": trainer.sampler.num_records,
        "sample_rate": plan and plan.sample_rate,
        "steps": trainer.options["epochs"] * trainer.steps_per_epoch,
        "epochs": trainer.options["epochs"],
        "noise_std": plan.noise_std(1) if steady else None,
        "max_grad_norm": plan and trainer.settings["mechanism"]["max_grad_norm"],
        "effective_max_grad_norm": plan and plan.clipping_norm,
        "sampler": type(trainer.sampler).__name__,
        "batch_size_expected": trainer.options["batch_size"],
        "sparsification": sparsified and sparsified["final_rate"],
        "noise_schedule": plan and trainer.settings["mechanism"]["noise_schedule"]["kind"],
    }
    spent = epsilons(trainer, plan.steps if plan else 0)
    spent = {key: value if math.isfinite(value) else None for key, value in spent.items()}
    return (
        promised
        | spent
        | {
            "batch_size_realised_mean": observed["draws"] / observed["steps"] if observed else None,
            "empty_batches": observed["empty_batches"] if observed else 0,
            "noise_additions": observed["noise_additions"] if observed else 0,
            "noise_ratio_realised": observed["noise_ratio"] if observed else None,
        }
        | promise_on_images(trainer)
    )


def promise_on_images(trainer: Trainer) -> dict:
    """What the noise on the images promises; nulls where there is none."""
    mechanism = trainer.settings["mechanism"]
    if not mechanisms.capabilities(mechanism["engine"]).local:
        return dict.fromkeys(local.COLUMNS)
    image = trainer.data.train[0][0]
    return local.promise(mechanism["mode"], mechanism["beta"], image.size)


def costs(trainer: Trainer) -> dict:
    """Time and memory of the job."""
    options = trainer.options
    training = sum(row["seconds"] for row in trainer.history)
    return {
        **trainer.place,
        "num_parameters": sum(p.numel() for p in trainer.network.parameters()),
        "batch_size": options["batch_size"],
        "physical_batch_size": trainer.history[-1]["physical_batch_size"],
        **cost.step_summary(trainer.timer.seconds),
        "epoch_seconds_p50": statistics.median(row["seconds"] for row in trainer.history),
        "images_per_second": sum(row["samples"] for row in trainer.history) / training,
        **trainer.peak.bytes,
        "training_seconds": training,
        "validation_seconds": sum(row["validation_seconds"] for row in trainer.history),
        "start_to_first_step_seconds": trainer.first_step_seconds,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value
