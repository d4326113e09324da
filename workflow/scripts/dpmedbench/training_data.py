"""The records of one fold, decoded, for training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dpmedbench import splits, store
from dpmedbench.training import Data


def load(data: str | Path, split_file: str | Path, fold: int) -> Data:
    """Training and validation records of `fold`, in the order of the store.

    Raises:
        UserError: where the store or the split file is not what it should be.
    """
    with store.open_store(data) as records:
        frame = splits.read(split_file, records)
        train, val = (splits.indices(frame, fold, part) for part in ("train", "val"))
        digest = hashlib.sha256(records.digest.encode())
        for part in (train, val):
            digest.update(part.astype("int64").tobytes() + b"/")
        return Data(
            train=records.read(train),
            val=records.read(val),
            task=records.task,
            channels=records.channels,
            num_classes=len(records.classes),
            digest=digest.hexdigest(),
        )
