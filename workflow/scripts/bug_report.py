"""Pack one cell, failed or not, for a bug report."""

from pathlib import Path

from dpmedbench import bug_report
from dpmedbench.job import running

with running(snakemake):
    cell, data = Path(snakemake.params.cell), snakemake.params.data
    bug_report.pack(
        Path(snakemake.output[0]),
        snakemake.params.settings,
        [Path(log) for log in snakemake.params.logs],
        [cell / "privacy.json", cell / "cost.json"],
        bug_report.names(Path(f"{data}.h5"), Path(f"{data}.splits.csv")),
    )
