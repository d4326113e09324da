"""Describe one network as it is trained on one dataset."""

from pathlib import Path

from dpmedbench import architecture
from dpmedbench.job import running

with running(snakemake):
    architecture.write(Path(snakemake.input[0]), snakemake.params.model, Path(snakemake.output[0]))
