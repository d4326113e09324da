"""Train one cell."""

from pathlib import Path

import torch

from dpmedbench import outcome
from dpmedbench.job import running
from dpmedbench.training import Cell
from dpmedbench.training_data import load

with running(snakemake):
    torch.set_num_threads(snakemake.threads)
    settings, code = snakemake.params.settings, snakemake.params.code
    data = load(snakemake.input.data, snakemake.input.splits, settings["identity"]["fold"])
    cell = Cell(settings, data, Path(snakemake.params.state), code)
    cell.run()
    outcome.write(cell, data, settings, code, snakemake.output)
