"""Time of a whole study on this machine, beside the arithmetic that it cannot do without.

    python benchmarks/study.py [--configfile config/studies/bookkeeping.yaml ...] [--datasets duke]
        [--side 224] [--epochs 1 3] [--gpus 1] [--out results/benchmarks/study.parquet]

Runs the study twice from raw data to the report with few epochs, and reads its time with all of its
epochs off the straight line through both. Downloads are replaced by phantoms of the official size.
The floor is the sum over all cells of their steps, each as long as one of ordinary training of the
same network on the same data. Cells whose engine is not installed are left out, and counted so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "helpers")]

OFFICIAL = {  # made-up raw data of the size of the real ones
    "duke": {"patients": 10, "scans": 11, "image_size": [496, 768]},
    "umn": {"patients": 29, "scans": 25, "image_size": [496, 1024]},
    "chest_xray": {"patients": 2928, "scans": 2, "image_size": [900, 1200]},
}


def main() -> int:
    """Measure, print and write the line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="+", default=["config/studies/bookkeeping.yaml"])
    parser.add_argument("--datasets", nargs="+", help="of the study; all if left out")
    parser.add_argument("--side", type=int, help="rows and columns of an image; as configured")
    parser.add_argument(
        "--epochs", type=int, nargs=2, help="of the two runs; 1 and 3, on CUDA 5 and 55"
    )
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--out", default="results/benchmarks/study.parquet")
    arguments = parser.parse_args()
    import machine

    device = machine.device("auto")
    arguments.epochs = arguments.epochs or {"cpu": (1, 3), "cuda": (5, 55)}[device]
    study = merged(arguments.configfile, arguments.datasets)
    for dataset in study["datasets"].values() if arguments.side else ():
        dataset["image_size"] = [arguments.side, arguments.side]
    few, more = ((epochs, *run(study, epochs, arguments.gpus)) for epochs in arguments.epochs)
    slope = (more[1] - few[1]) / (more[0] - few[0])
    if slope <= 0:
        raise SystemExit(
            f"{few[0]} epochs took {few[1]:.0f} s and {more[0]} took {more[1]:.0f} s: no time of "
            "an epoch can be read off that; give --epochs that are further apart"
        )
    cost, epochs = more[2], study["training"]["epochs"]
    floor = arithmetic(cost) * epochs / more[0]
    row = {
        "study": study["study"],
        "datasets": ", ".join(study["datasets"]),
        "side": next(iter(study["datasets"].values()))["image_size"][0],
        "cells": len(cost),
        "epochs": epochs,
        "seconds": few[1] + slope * (epochs - few[0]),
        "floor": floor,
    }
    print(
        f"{row['study']}: {row['cells']} cells of {epochs} epochs in {row['seconds'] / 3600:.2f} h,"
        f" {3600 * row['cells'] / row['seconds']:.1f} cells an hour; floor {floor / 3600:.2f} h"
    )
    for count, seconds, _ in (few, more):
        print(f"  with {count} epochs {seconds:.0f} s")
    machine.write([row], arguments.out, device)
    return 0


def merged(files: list[str], datasets: list[str] | None) -> dict:
    """The study as Snakemake would merge it, of some datasets and without downloads."""
    import yaml
    from snakemake.utils import update_config

    study: dict = {}
    for file in files:
        update_config(study, yaml.safe_load(Path(file).read_text("utf-8")))
    kept = datasets or list(study["datasets"])
    study["datasets"] = {name: study["datasets"][name] for name in kept}
    for name, dataset in study["datasets"].items():
        if dataset.get("source") == "download":
            loader = dataset.get("loader", name)
            dataset.update(source="phantom", phantom=OFFICIAL[loader], loader=loader)
    for grid in study["grids"]:
        grid["datasets"] = [name for name in grid["datasets"] if name in kept]
    return study


def run(study: dict, epochs: int, gpus: int):
    """Seconds from raw data to the report, and the table of what each cell cost."""
    import pandas as pd
    from checkout import Checkout

    training = study["training"] | {"epochs": epochs}
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--resources", f"gpu={gpus}"]
    with tempfile.TemporaryDirectory() as folder:
        Checkout(Path(folder), study | {"training": training})
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--configfile", "study.yaml"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"the study failed:\n{done.stdout[-3000:]}")
        tables = Path(folder) / "results" / study["study"] / "tables"
        return seconds, pd.read_parquet(tables / "cost.parquet")


def arithmetic(cost) -> float:
    """Seconds of the steps of all cells, were each one of ordinary training."""
    from dpmedbench.cost import WARM_UP

    plain = cost[cost.engine == "none"].groupby(["dataset", "model"]).step_seconds_p50.median()
    steps = cost.set_index(["dataset", "model"]).steps_measured + WARM_UP
    return float((steps * plain.reindex(steps.index)).sum())


if __name__ == "__main__":
    sys.exit(main())
