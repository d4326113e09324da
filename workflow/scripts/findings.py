"""Write what the front page of the report says of the run."""

from dpmedbench import files, tables
from dpmedbench.job import running
from dpmedbench.report import findings

with running(snakemake):
    paths = dict(snakemake.input.items())
    manifests = [files.read_json(path) for path in paths.pop("manifests")]
    collected = {name: tables.read(path) for name, path in paths.items()}
    files.write_json(snakemake.output[0], findings.find(collected, manifests))
