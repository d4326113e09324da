"""Draw all figures of a dataset, or of the study, and write their captions."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from dpmedbench import figures
from dpmedbench.figures import style  # noqa: F401  before the processes part: it takes seconds
from dpmedbench.job import running

LISTS = {"masks", "perturbed", "networks", "benchmark"}


def draw(name: str) -> None:
    files = {
        need: [paths] if need in LISTS and isinstance(paths, str) else paths
        for need, paths in snakemake.input.items()
    }
    figures.render(
        name,
        snakemake.params.dataset,
        files | snakemake.params.given,
        [path for path in snakemake.output if Path(path).stem == name],
        snakemake.params.captions[name],
        snakemake.params.mechanisms,
    )


with (
    running(snakemake),
    ProcessPoolExecutor(snakemake.threads, mp_context=get_context("fork")) as pool,
):
    list(pool.map(draw, snakemake.params.captions))
