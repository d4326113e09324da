"""What benchmarks share: how a process is to be timed, and tables that name the machine."""

from __future__ import annotations

from pathlib import Path

TIMED = {  # environment: a waiting thread does not spin, and freed memory is kept: no page faults
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_MMAP_MAX_": "0",
}

STEPS = {"cpu": 3, "cuda": 50}  # that are timed, so that a round takes seconds


def device(wanted: str) -> str:
    """cpu or cuda; `wanted` may be auto, too."""
    import torch

    return {"auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(wanted, wanted)


def write(rows: list[dict], out: str | Path, device: str = "cpu") -> None:
    """Write `rows` to `out`, and say so."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from dpmedbench import cost
    from dpmedbench.files import replacing

    machine = {
        "device": device,
        "hardware": cost.device_name(torch.device(device)),
        "torch": torch.__version__,
    }
    with replacing(out) as temporary:
        pq.write_table(pa.Table.from_pylist([row | machine for row in rows]), temporary)
    print(f"\nwritten to {out}")
