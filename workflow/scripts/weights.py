"""Download the ImageNet weights."""

from pathlib import Path

from dpmedbench import download, pretrained
from dpmedbench.job import running

with running(snakemake):
    download.fetch(pretrained.OFFICIAL, Path(snakemake.output[0]).parent)
