"""Draw the raw files of a phantom dataset, in the official layout of its loader."""

from pathlib import Path

from dpmedbench import datasets
from dpmedbench.job import running

with running(snakemake):
    phantom = snakemake.params.phantom
    datasets.load(snakemake.params.loader).write_phantom(
        Path(snakemake.output[0]),
        phantom["patients"],
        phantom["scans"],
        tuple(phantom["image_size"]),
        phantom["seed"],
    )
