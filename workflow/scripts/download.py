"""Download the raw files of a dataset and unpack them; an interrupted download goes on."""

from pathlib import Path

from dpmedbench import datasets, download
from dpmedbench.job import running

with running(snakemake):
    spec = datasets.load(snakemake.params.loader).SPEC
    archive = download.fetch(spec.download, Path(snakemake.params.archives))
    download.unpack(archive, Path(snakemake.output[0]))
