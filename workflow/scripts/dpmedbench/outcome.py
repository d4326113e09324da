"""What a finished cell writes: its weights, history, privacy, cost and manifest."""

from __future__ import annotations

import math
import os
import statistics

import pyarrow as pa
import pyarrow.parquet as pq

from dpmedbench import cost, disclosure, mechanisms, provenance
from dpmedbench.files import replacing, write_json
from dpmedbench.privacy import local
from dpmedbench.privacy.accounting import ACCOUNTANTS
from dpmedbench.training import Cell

SELECTION = {
    "last": "the last epoch; no selection",
    "best_validation": "the best epoch on validation data: not covered by epsilon",
}


def write(cell: Cell, outputs) -> None:
    """Write the outputs of a cell that ran.

    Args:
        outputs: has the paths `model`, `history`, `privacy`, `cost` and `manifest`.
    """
    from safetensors.torch import save_file

    name, last = identity(cell), cell.history[-1]["step"]
    with replacing(outputs.model) as temporary:
        save_file(cell.weights(), temporary)
    with replacing(outputs.history) as temporary:
        pq.write_table(pa.Table.from_pylist(history(cell)), temporary, compression="zstd")
    write_json(outputs.privacy, name | privacy(cell))
    write_json(outputs.cost, name | costs(cell))
    write_json(
        outputs.manifest,
        {
            "settings": cell.settings,
            "data": {
                "digest": cell.data.digest,
                "train": len(cell.data.train[0]),
                "val": len(cell.data.val[0]),
                "perturbation": cell.data.perturbation,
            },
            "code": cell.code,
            "selection": SELECTION[cell.options["selection"]],
            "randomness": cell.sampler.randomness.title,
            "mechanism": cell.engine.record(),
            "device": cost.device_name(cell.device),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "disclosure": disclosure.note(cell.settings, epsilons(cell, last)["epsilon"]),
            **provenance.manifest(),
        },
    )


def identity(cell: Cell) -> dict:
    """The identity columns; the noise multiplier is the calibrated one, 0 where not private."""
    sigma = cell.plan.noise_multiplier if cell.plan else 0.0
    return cell.settings["identity"] | {"noise_multiplier": sigma}


def history(cell: Cell) -> list[dict]:
    """A row an epoch: identity, what was measured, the hyper-parameters, epsilon."""
    options, plan = cell.options, cell.plan
    name = identity(cell)
    name["target_epsilon"] = _number(name["target_epsilon"])
    fixed = {
        "weight_decay": options["weight_decay"],
        "batch_size": options["batch_size"],
        "epochs": options["epochs"],
        "max_grad_norm": cell.settings["mechanism"]["max_grad_norm"] if plan else math.nan,
        "sample_rate": plan.sample_rate if plan else math.nan,
        "delta": plan.delta if plan else math.nan,
        "device": cost.device_name(cell.device),
    }
    return [name | row | fixed | epsilons(cell, row["step"]) for row in cell.history]


def epsilons(cell: Cell, step: int) -> dict[str, float]:
    """Epsilon after `step` steps, of the configured accountant and of each; inf if not private."""
    if not cell.plan:
        return {"epsilon": math.inf} | {f"epsilon_{name}": math.inf for name in ACCOUNTANTS}
    found = cell.plan.epsilons(step)
    return {"epsilon": found[cell.plan.accountant]} | {
        f"epsilon_{name}": value for name, value in found.items()
    }


def privacy(cell: Cell) -> dict:
    """The plan, what it costs, and what was seen of its being kept; nulls if not private.

    `noise_std` is null too where it changes from step to step.
    """
    plan, observed = cell.plan, cell.observed
    sparsified = cell.settings["mechanism"]["sparsification"]
    steady = plan and not plan.noise_factors and plan.count_noise is None
    promised = {
        "unit": plan and plan.unit,
        "sampling": plan and plan.sampling,
        "neighbouring": plan and plan.neighbouring,
        "accountant": plan and plan.accountant,
        "delta": plan and plan.delta,
        "num_records": cell.sampler.num_records,
        "sample_rate": plan and plan.sample_rate,
        "steps": cell.options["epochs"] * cell.steps_per_epoch,
        "epochs": cell.options["epochs"],
        "noise_std": plan.noise_std(1) if steady else None,
        "max_grad_norm": plan and cell.settings["mechanism"]["max_grad_norm"],
        "effective_max_grad_norm": plan and plan.clipping_norm,
        "sampler": type(cell.sampler).__name__,
        "batch_size_expected": cell.options["batch_size"],
        "sparsification": sparsified and sparsified["final_rate"],
        "noise_schedule": plan and cell.settings["mechanism"]["noise_schedule"]["kind"],
    }
    spent = epsilons(cell, plan.steps if plan else 0)
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
        | promise_on_images(cell)
    )


def promise_on_images(cell: Cell) -> dict:
    """What the noise on the images promises; nulls where there is none."""
    mechanism = cell.settings["mechanism"]
    if not mechanisms.capabilities(mechanism["engine"]).local:
        return dict.fromkeys(local.COLUMNS)
    image = cell.data.train[0][0]
    return local.promise(mechanism["mode"], mechanism["beta"], image.size)


def costs(cell: Cell) -> dict:
    """Time and memory of the job."""
    options = cell.options
    training = sum(row["seconds"] for row in cell.history)
    return {
        "device": cost.device_name(cell.device),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "num_parameters": sum(p.numel() for p in cell.network.parameters()),
        "batch_size": options["batch_size"],
        "physical_batch_size": cell.physical_batch_size,
        **cost.step_summary(cell.timer.seconds),
        "epoch_seconds_p50": statistics.median(row["seconds"] for row in cell.history),
        "images_per_second": sum(row["samples"] for row in cell.history) / training,
        **cell.peak.bytes,
        "training_seconds": training,
        "validation_seconds": sum(row["validation_seconds"] for row in cell.history),
        "start_to_first_step_seconds": cell.first_step_seconds,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value
