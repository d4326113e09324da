"""Predict and score the test set of one cell."""

import contextlib
from pathlib import Path

import pyarrow.parquet as pq
import torch

from dpmedbench import models, prediction, splits, store
from dpmedbench.job import running

with running(snakemake), contextlib.ExitStack() as stack:
    records = stack.enter_context(store.open_store(Path(snakemake.input.data)))
    perturbed = snakemake.input.perturbed
    noisy = stack.enter_context(store.open_store(Path(perturbed))) if perturbed else None
    torch.set_num_threads(snakemake.threads)
    model = models.of(snakemake.params.model, records.channels, len(records.classes))
    prediction.load_weights(model, snakemake.input.model)
    history = pq.read_table(snakemake.input.history)
    fold = prediction.identity(history)["fold"]
    frame = splits.read(Path(snakemake.input.splits), records)
    parts = {part: splits.indices(frame, fold, part) for part in ("train", "test")}
    prediction.load(records.task).write(snakemake.output, records, parts, model, history, noisy)
