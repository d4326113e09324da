"""A job of the workflow, as Snakemake hands it to a script."""

from pathlib import Path
from types import SimpleNamespace

from dpmedbench import console

SCRIPTS = Path(console.__file__).parents[1]


def job(tmp_path, scripts=SCRIPTS):
    log = [str(tmp_path / "logs" / "job.log")]
    return SimpleNamespace(log=log, rule="train", scriptdir=str(scripts), wildcards={})
