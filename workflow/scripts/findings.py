"""Write what the front page of the report says of the run."""

from dpmedbench import files, tables
from dpmedbench.job import running
from dpmedbench.report import findings

with running(snakemake):
    files.write_json(
        snakemake.output[0],
        findings.find(tables.read(snakemake.input.summary), tables.read(snakemake.input.claims)),
    )
