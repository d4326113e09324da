"""Draw one figure of one dataset."""

from pathlib import Path

from dpmedbench import figures
from dpmedbench.job import running


def _paths(files: str | list[str]) -> list[Path]:
    return [Path(path) for path in ([files] if isinstance(files, str) else files)]


with running(snakemake):
    inputs = dict(snakemake.input.items())
    masks, perturbed = (inputs.pop(name, []) for name in ("masks", "perturbed"))
    figures.render(
        snakemake.wildcards.figure,
        snakemake.wildcards.dataset,
        {kind: Path(path) for kind, path in inputs.items() if kind != "store"},
        Path(inputs["store"]) if "store" in inputs else None,
        _paths(masks),
        [Path(path) for path in snakemake.output],
        _paths(perturbed),
    )
