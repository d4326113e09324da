"""Collect one kind of result of all cells into one table."""

from dpmedbench import tables
from dpmedbench.job import running

with running(snakemake):
    tables.collect(snakemake.wildcards.table, snakemake.params.folders, snakemake.output[0])
