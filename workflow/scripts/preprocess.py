"""Read the raw files of a dataset into one HDF5 file."""

from pathlib import Path

from dpmedbench import datasets, store
from dpmedbench.job import running

with running(snakemake):
    options = snakemake.params.dataset
    loader = datasets.load(options["loader"])
    store.write(
        Path(snakemake.output[0]),
        loader.read(Path(snakemake.input[0]), options["grader"]),
        loader.SPEC,
        tuple(options["image_size"]),
        {key: options[key] for key in ("loader", "source", "grader")},
    )
