"""Time and memory of collecting many cells into one table.

    python benchmarks/aggregate.py [--cells 2000] [--epochs 100] [--images 11]

Writes made-up cells into a temporary folder, collects each kind of table in a process of its own,
and prints a table. Exit code 1 where a kind took more than 30 s or 1 GB. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "scripts"
sys.path[:0] = [str(LIBRARY), str(ROOT / "tests" / "helpers")]

MOST_SECONDS, MOST_BYTES = 30.0, 1e9

COLLECT = """
import json, sys, time
from pathlib import Path
from dpmedbench import tables
kind, listed, out = sys.argv[1:]
folders = Path(listed).read_text().splitlines()
started = time.perf_counter()
tables.collect(kind, folders, out)
seconds = time.perf_counter() - started
peak = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "bytes": 1024 * int(peak.split()[1])}))
"""


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--images", type=int, default=11, help="test images of a cell")
    arguments = parser.parse_args()

    import pyarrow.parquet as pq
    from made_up import grid, write

    seeds = -(-arguments.cells // 26)
    cells = grid(
        datasets=("duke", "umn"),
        mechanisms=("non_private", "opacus_flat", "opacus_per_layer", "bookkeeping"),
        sigmas=(0.3, 0.5, 0.7, 1.0),
        seeds=seeds,
    )[: arguments.cells]
    over = False
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        folders = write(Path(folder) / "cells", cells, arguments.epochs, arguments.images)
        print(f"{len(folders)} made-up cells in {time.perf_counter() - started:.1f} s\n")
        listed = Path(folder) / "cells.txt"
        listed.write_text("\n".join(map(str, folders)))
        print(f"{'table':<9}{'cells':>7}{'rows':>10}{'seconds':>9}{'peak MB':>9}{'file MB':>9}")
        for kind in ("history", "scores", "cost", "privacy"):
            out = Path(folder) / f"{kind}.parquet"
            done = subprocess.run(
                [sys.executable, "-c", COLLECT, kind, str(listed), str(out)],
                env={"PYTHONPATH": str(LIBRARY)},
                stdout=subprocess.PIPE,
                check=True,
            )
            measured = json.loads(done.stdout)
            seconds, peak = measured["seconds"], measured["bytes"]
            over |= seconds > MOST_SECONDS or peak > MOST_BYTES
            print(
                f"{kind:<9}{len(cells):>7}{pq.read_metadata(out).num_rows:>10}{seconds:>9.1f}"
                f"{peak / 1e6:>9.0f}{out.stat().st_size / 1e6:>9.1f}"
            )
    print(f"\n{'OVER' if over else 'within'} {MOST_SECONDS:g} s and {MOST_BYTES / 1e6:g} MB")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
