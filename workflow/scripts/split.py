"""Say which record is trained on, validated on and tested on; an edited file is kept."""

from pathlib import Path

from dpmedbench import splits, store
from dpmedbench.job import running

with running(snakemake), store.open_store(Path(snakemake.input[0])) as records:
    frame = splits.make(
        records.patients, records.sources, records.official, **snakemake.params.split
    )
    splits.write(frame, Path(snakemake.output[0]), records)
