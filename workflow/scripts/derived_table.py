"""Make one table from the collected ones: the summary, the comparisons or the claims."""

import importlib

from dpmedbench import results, tables
from dpmedbench.job import running

with running(snakemake):
    maker = importlib.import_module(f"dpmedbench.{snakemake.wildcards.table}")
    found = results.read(dict(snakemake.input.items()), snakemake.params.real)
    tables.write(maker.table(found), snakemake.output[0])
