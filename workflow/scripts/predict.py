"""Predict and score the test set of one cell."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from dpmedbench import models, prediction, splits, store
from dpmedbench.files import replacing
from dpmedbench.job import running
from dpmedbench.metrics import most_frequent_class
from dpmedbench.tables import IDENTITY

with running(snakemake), store.open_store(Path(snakemake.input.data)) as records:
    torch.set_num_threads(snakemake.threads)
    network = dict(snakemake.params.model)
    model = models.build(network.pop("network"), records.channels, len(records.classes), **network)
    prediction.load_weights(model, snakemake.input.model)
    history = pq.read_table(snakemake.input.history, columns=list(IDENTITY))
    identity = history.slice(0, 1).to_pylist()[0]
    frame = splits.read(Path(snakemake.input.splits), records)
    train, test = (splits.indices(frame, identity["fold"], part) for part in ("train", "test"))
    prediction.write_masks(snakemake.output.masks, records, test, model, identity)
    constant = most_frequent_class(records.read([row])[1] for row in train)
    scores = prediction.score_table(snakemake.output.masks, constant, identity)
    with replacing(snakemake.output.scores) as temporary:
        pq.write_table(scores, temporary, compression="zstd")
