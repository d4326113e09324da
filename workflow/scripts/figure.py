"""Draw one figure of one dataset."""

from pathlib import Path

from dpmedbench import figures
from dpmedbench.job import running

with running(snakemake):
    inputs = dict(snakemake.input.items())
    masks = inputs.pop("masks", [])
    figures.render(
        snakemake.wildcards.figure,
        snakemake.wildcards.dataset,
        {kind: Path(path) for kind, path in inputs.items() if kind != "store"},
        Path(inputs["store"]) if "store" in inputs else None,
        [Path(path) for path in ([masks] if isinstance(masks, str) else masks)],
        [Path(path) for path in snakemake.output],
    )
