"""Put the noise of a local mechanism on every image of a dataset, once for all cells."""

from pathlib import Path

from dpmedbench import perturbation
from dpmedbench.job import running

with running(snakemake):
    noise = snakemake.params.noise
    perturbation.write(
        Path(snakemake.output[0]),
        Path(snakemake.input[0]),
        noise["mode"],
        noise["beta"],
        perturbation.randomness(**noise),
    )
