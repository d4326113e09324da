"""Collect figures and tables for a paper."""

from pathlib import Path

from dpmedbench.job import running
from dpmedbench.report import paper

with running(snakemake):
    paper.write(
        Path(snakemake.output[0]),
        snakemake.params.title,
        [paper.Drawn(Path(path), **about) for path, about in snakemake.params.figures.items()],
        [Path(page) for page in snakemake.input.pages],
    )
