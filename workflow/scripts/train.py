"""Train one cell."""

from pathlib import Path

import torch

from dpmedbench import outcome
from dpmedbench.job import running
from dpmedbench.training import Cell
from dpmedbench.training_data import load

with running(snakemake):
    torch.set_num_threads(snakemake.threads)
    settings = snakemake.params.settings
    data = load(
        snakemake.input.data,
        snakemake.input.splits,
        settings["identity"]["fold"],
        snakemake.input.perturbed or None,
    )
    cell = Cell(settings, data, Path(snakemake.params.state), snakemake.params.code)
    cell.run()
    outcome.write(cell, snakemake.output)
