"""Draw test scans of one cell: image, truth, prediction, disagreement."""

from pathlib import Path

from dpmedbench import figures
from dpmedbench.figures import scans
from dpmedbench.job import running

with running(snakemake):
    figures.save(scans.picture(Path(snakemake.input.masks)), snakemake.output.scans)
