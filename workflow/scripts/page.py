"""Write one page of tables for the report, and the same as LaTeX and CSV."""

import pandas as pd

from dpmedbench import tables
from dpmedbench.job import running
from dpmedbench.report import pages

with running(snakemake):
    collected = {name: tables.read(path) for name, path in snakemake.input.items()}
    pages.write(
        snakemake.wildcards.page,
        collected | {"support": pd.DataFrame(snakemake.params.support)},
        dict(snakemake.output.items()),
    )
