"""Pack what may leave the place of the patients."""

from pathlib import Path

from dpmedbench import share
from dpmedbench.job import running

with running(snakemake):
    scores = snakemake.input.get("scores")
    share.pack(
        Path(snakemake.output[0]),
        snakemake.params.folders,
        Path(snakemake.input.summary),
        scores and Path(scores),
    )
