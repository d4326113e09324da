"""Tables of benchmarks: Parquet, each row with the machine that it was measured on."""

from __future__ import annotations

from pathlib import Path


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
