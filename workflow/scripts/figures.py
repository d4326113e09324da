"""Draw all figures of a dataset, or of the study, and write their captions."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from dpmedbench import figures
from dpmedbench.figures import style  # noqa: F401  before the processes part: it takes seconds
from dpmedbench.job import running


def draw(name: str) -> None:
    figures.render(
        name,
        snakemake.params.dataset,
        dict(snakemake.input.items()) | snakemake.params.given,
        [path for path in snakemake.output if Path(path).stem == name],
        snakemake.params.captions[name],
        snakemake.params.mechanisms,
    )


with (
    running(snakemake),
    ProcessPoolExecutor(snakemake.threads, mp_context=get_context("fork")) as pool,
):
    list(pool.map(draw, snakemake.params.captions))
