"""Speed of preprocessing against that of decoding alone, of the same files in one run.

    python benchmarks/preprocess.py [--threads 2] [--size 224] [--images 2000] [--rounds 3]
        [--out results/benchmarks/preprocess.parquet]

Reads the chest X-rays in $DPMEDBENCH_SHARED_DATA/chest_xray, or JPEG files that it draws where
there are none. They take turns, each round in its own process; the fastest round of each counts.
Decoding and resizing is told beside it: what remains is checking, hashing and writing to disk.
Exit code 1 where preprocessing is under 80 % of decoding alone. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
sys.path.insert(0, str(LIBRARY))

LEAST_SHARE = 0.8

# All on as many threads: bytes to an array of grey; the same resized; the whole.
WORK = """
import h5py, json, sys, time
from dpmedbench import resize, store_writer, threads
from dpmedbench.datasets import chest_xray
what, folder, out, workers, size, images = sys.argv[1:]
records = chest_xray.read(folder, {"unreadable": "stop"})
records = records[:: max(1, len(records) // int(images))]
rows, columns = records[0].image().shape  # and imports
started = time.perf_counter()
size = (int(size), int(size))
if what == "preprocess":
    store_writer.write(out, records, chest_xray.SPEC, size, {}, threads=int(workers))
else:
    work = {"decode": lambda r: r.image(), "and resize": lambda r: resize.image(r.image(), size)}
    for _ in threads.in_order(work[what], records, int(workers)):
        pass
seconds = time.perf_counter() - started
status = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
found = {"images": len(records), "rows": rows, "columns": columns}
found |= {"speed": len(records) / seconds, "megabytes": peak / 1e3}
print(json.dumps(found))
"""


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=224, help="pixels a side to resize to")
    parser.add_argument("--images", type=int, default=2000, help="about how many of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="results/benchmarks/preprocess.parquet")
    arguments = parser.parse_args()
    import machine

    best: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("DPMEDBENCH_SHARED_DATA", "")) / "chest_xray"
        if "DPMEDBENCH_SHARED_DATA" not in os.environ or not folder.is_dir():
            from dpmedbench.datasets import chest_xray

            folder = Path(temporary)
            chest_xray.write_phantom(folder, 100, 2, (900, 1200), 0)
        for _ in range(arguments.rounds):
            for what in ("decode", "and resize", "preprocess"):
                out = Path(temporary) / "out.h5"
                out.unlink(missing_ok=True)  # to free what a file had takes time, too
                found = _measure(what, folder, out, arguments)
                best[what] = max(found, best.get(what, found), key=lambda one: one["speed"])
    print(f"{best['decode']['images']} images of {folder}, {arguments.threads} threads")
    print(f"{'':<12}{'images/s':>10}{'peak MB':>10}")
    for what, found in best.items():
        print(f"{what:<12}{found['speed']:>10.0f}{found['megabytes']:>10.0f}")
    share, rest = (
        best["preprocess"]["speed"] / best[what]["speed"] for what in ("decode", "and resize")
    )
    print(
        f"\n{share:.0%} of decoding alone, expected at least {LEAST_SHARE:.0%}; "
        f"{rest:.0%} of decoding and resizing"
    )
    shared = {"threads": arguments.threads, "side": arguments.size}
    rows = [shared | {"what": what} | found for what, found in best.items()]
    machine.write(rows, arguments.out)
    return int(share < LEAST_SHARE)


def _measure(what: str, folder: Path, out: Path, arguments: argparse.Namespace) -> dict:
    numbers = (arguments.threads, arguments.size, arguments.images)
    done = subprocess.run(
        [sys.executable, "-c", WORK, what, str(folder), str(out), *map(str, numbers)],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
