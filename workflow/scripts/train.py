"""Train one cell."""

from pathlib import Path

from dpmedbench import collector, devices, locks
from dpmedbench.job import running

state, settings = Path(snakemake.params.state), snakemake.params.settings
resources = snakemake.resources
execution = {
    "device": resources.device,
    "checkpoint_seconds": resources.checkpoint_seconds,
    "physical_batch_size": resources.physical_batch_size,
    "cells_per_gpu": resources.cells_per_gpu,
}

with (
    running(snakemake),
    locks.held([state / "lock"], f"{state}"),
    devices.slot(resources.device, resources.cells_per_gpu),
):
    with collector.paused():
        import torch  # not before: it is to see no other GPU

        from dpmedbench import memory, outcome
        from dpmedbench.training import Trainer
        from dpmedbench.training_data import load

        torch.set_num_threads(snakemake.threads)
        data = load(
            snakemake.input.data,
            snakemake.input.splits,
            settings["identity"]["fold"],
            snakemake.input.perturbed or None,
        )
    cell = memory.run(
        lambda halvings: Trainer(settings, execution, data, state, snakemake.params.code, halvings)
    )
    outcome.write(cell, snakemake.output)
