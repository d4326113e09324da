"""How a run grows with its cells, and what a training job does before its first step.

    python benchmarks/scale.py [--cells 10 100 1000] [--start]

For each number of cells, CPU seconds and peak memory of what Snakemake does for a dry run, for one
on a cluster (short jobs are grouped) and, over a whole run, to schedule and record every job
(`--touch`, which runs none); then of collecting and deriving all tables and of drawing all figures
of a dataset, from made-up cells. With `--start`, only where the CPU seconds of a training job go
until its first step, and the packages whose import takes longest. Exit code 1 where a dry run took
more than 30 s or 1 GB, or a start more than 4 s. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "scripts"
sys.path[:0] = [str(LIBRARY), str(ROOT / "tests" / "helpers")]

MOST_SECONDS, MOST_BYTES, MOST_START = 30.0, 1e9, 4.0
SNAKEMAKE = {
    "dry run": ["--dry-run"],
    "dry run, grouped": ["--dry-run", "--workflow-profile", "workflow/profiles/slurm"],
    "schedule": ["--touch", "--forceall"],
}
OUTPUTS = (
    *("model.safetensors", "history.parquet", "privacy.json", "cost.json", "manifest.json"),
    *("masks.h5", "scores.parquet", "scans.png"),
)
MECHANISMS = ("opacus_flat", "bookkeeping")
SIGMAS = (0.3, 0.5, 0.7, 1.0, 2.0)

MADE_UP = """
import sys, time
import studies
from made_up import grid
count, mechanisms, sigmas = int(sys.argv[1]), sys.argv[2].split(), eval(sys.argv[3])
cells = grid(mechanisms=mechanisms, sigmas=sigmas, seeds=-(-count // 10))[:count]
studies.STUDIES["made_up"] = (cells, 50)
write_tables = studies.write_tables
def timed(name, function, *arguments):
    began = time.process_time()
    result = function(*arguments)
    print(name, time.process_time() - began)
    return result
studies.write_tables = lambda *arguments: timed("tables", write_tables, *arguments)
study = studies.Study("made_up")
def draw():
    for name in studies.EVERY:
        study.render(name, *(study.root / f"{name}.{kind}" for kind in ("svg", "png", "pdf")))
timed("figures", draw)
"""

# train.py as Snakemake runs it, ended after its first step
START = """
import json, runpy, sys, time
from types import SimpleNamespace
marks = {}
def mark(name):
    marks[name] = time.process_time()
mark("python")
from dpmedbench import collector
with collector.paused():  # as in train.py
    import torch
    mark("torch")
    from dpmedbench import cost, memory, outcome, training, training_data
    mark("dpmedbench")
read = training_data.load
def load(*arguments):
    data = read(*arguments)
    mark("data")
    return data
def stop(timer):
    mark("network to first step")
    print(json.dumps(marks))
    sys.exit()
training_data.load, cost.StepTimer.stop = load, stop
script, data, splits, settings, execution = sys.argv[1:]
settings = json.loads(settings)
snakemake = SimpleNamespace(
    rule="train", log=["train.log"], scriptdir=script.rpartition("/")[0], threads=1, wildcards=None,
    input=SimpleNamespace(data=data, splits=splits, perturbed=[]), output=None,
    params=SimpleNamespace(settings=settings, state="state/start", code=""),
    resources=SimpleNamespace(**json.loads(execution)),
)
runpy.run_path(script, {"snakemake": snakemake})
"""


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--start", action="store_true", help="only the start of a training job")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.start:
            return start(Path(folder))
        return max(growth(cells, Path(folder, str(cells))) for cells in arguments.cells)


def growth(count: int, folder: Path) -> int:
    """Print what a study of `count` cells takes; whether Snakemake took too much."""
    from checkout import TINY, Checkout

    from dpmedbench import cells
    from dpmedbench.config import load

    folder.mkdir()
    mechanisms = {name: {"engine": name.partition("_")[0]} for name in MECHANISMS}
    mechanisms = {
        name: way | {"clipping": "abadi", "clipping_style": "flat"}
        for name, way in mechanisms.items()
    }
    grid = TINY["grids"][0] | {
        "mechanisms": list(MECHANISMS),
        "noise_multiplier": list(SIGMAS),
        "seeds": list(range(-(-count // 10))),
    }
    study = TINY | {"mechanisms": mechanisms, "grids": [grid]}
    Checkout(folder, study)
    results = folder / "results" / "tiny"
    wanted = load(study)
    for cell in cells.every(wanted):
        folder_of_cell = results / "cells" / cell.folder
        folder_of_cell.mkdir(parents=True)
        for name in OUTPUTS:
            (folder_of_cell / name).touch()
        settings = {"settings": cells.settings(wanted, cell)}
        (folder_of_cell / "manifest.json").write_text(json.dumps(settings))
    over = False
    for what, options in SNAKEMAKE.items():
        command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml", *options]
        _, seconds, peak = measured([*command, "--cores", "2", "--quiet", "all"], folder)
        over |= what.startswith("dry run") and (seconds > MOST_SECONDS or peak > MOST_BYTES)
        print(f"{count:>6} {what:<18}{seconds:>8.1f} s{peak / 1e6:>8.0f} MB", flush=True)
    command = [sys.executable, "-c", MADE_UP, str(count), " ".join(MECHANISMS), repr(SIGMAS)]
    said, _, peak = measured(command, folder, LIBRARY, ROOT / "tests" / "helpers")
    for what, seconds in re.findall(r"^(tables|figures) (\S+)$", said, re.MULTILINE):
        print(f"{count:>6} {what:<18}{float(seconds):>8.1f} s{peak / 1e6:>8.0f} MB", flush=True)
    return int(over)


def start(folder: Path) -> int:
    """Print where a training job's start goes, for each engine; whether it took too long."""
    from checkout import TINY, Checkout

    from dpmedbench import cells
    from dpmedbench.config import load

    Checkout(folder)
    data = ["results/tiny/data/phantom_duke.h5", "results/tiny/data/phantom_duke.splits.csv"]
    options = ["--cores", "1", "--configfile", "study.yaml"]
    measured([sys.executable, "-m", "snakemake", *data, *options], folder)
    study, over = load(TINY), False
    for cell in cells.every(study):
        script = folder / "workflow" / "scripts" / "train.py"
        given = [json.dumps(cells.settings(study, cell)), json.dumps(cells.execution(study))]
        command = ["-c", START, str(script), *data, *given]
        said, _, _ = measured([sys.executable, *command], folder, script.parent)
        marks, before = json.loads(said.splitlines()[-1]), 0.0
        print(f"{cell.mechanism}, CPU seconds to the first step:")
        for name, seconds in marks.items():
            print(f"  {name:<21}{seconds - before:>6.2f}")
            before = seconds
        print(f"  {'total':<21}{before:>6.2f}")
        over |= before > MOST_START
        said, _, _ = measured([sys.executable, "-X", "importtime", *command], folder, script.parent)
        own = collections.Counter()
        for microseconds, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", said):
            own[module.partition(".")[0]] += int(microseconds)
        longest = (f"{name} {microseconds / 1e6:.2f}" for name, microseconds in own.most_common(8))
        print(f"  seconds of importing: {', '.join(longest)}\n")
    return int(over)


def measured(command: list[str], folder: Path, *path: Path) -> tuple[str, float, int]:
    """What a command says, its CPU seconds and its peak memory in bytes; it must succeed.

    `path` are folders for Python to import from.
    """
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(map(str, path))}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process.stdout:
        said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{' '.join(command[:6])} failed:\n{said[-3000:]}")
    return said, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
