"""Read the raw files of a dataset into one HDF5 file."""

from pathlib import Path

from dpmedbench import datasets, store_writer
from dpmedbench.job import running

with running(snakemake):
    given = snakemake.params.dataset
    loader = datasets.load(given["loader"])
    options = loader.SPEC.choose({name: given[name] for name in loader.SPEC.options})
    folder = Path(snakemake.input[0])
    spec = loader.describe(folder, options) if hasattr(loader, "describe") else loader.SPEC
    store_writer.write(
        Path(snakemake.output[0]),
        loader.read(folder, options),
        spec,
        tuple(given["image_size"]),
        {"loader": given["loader"], "source": given["source"], **options},
        threads=snakemake.threads,
        unreadable=options.get("unreadable", "stop"),
    )
