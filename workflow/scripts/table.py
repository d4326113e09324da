"""Collect one kind of result of all cells into one table."""

from dpmedbench import tables
from dpmedbench.job import running

with running(snakemake):
    settings = snakemake.params.settings
    tables.check_settings(settings)
    tables.collect(snakemake.wildcards.table, settings, snakemake.output[0])
