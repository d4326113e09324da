"""The faults: each disturbs the second cell of a study, runs it again and tells what was lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from checkout import TINY
from safetensors.numpy import load_file
from study import EPOCHS, STUDY, Disturbed

from dpmedbench.store import open_store

FAULTS: list[Fault] = []
FULL = "No space left on device"


@dataclass(frozen=True)
class Fault:
    """One way to disturb a study.

    `disturb` takes a study and an undisturbed one, and returns what was lost; an AssertionError
    means that the fault was not survived.
    """

    name: str
    disturb: Callable[[Disturbed, Disturbed], str]
    mounts: bool


def fault(name: str, mounts: bool = False) -> Callable:
    """Add a fault to FAULTS; `mounts`: it mounts file systems."""

    def add(disturb: Callable) -> Callable:
        FAULTS.append(Fault(name, disturb, mounts))
        return disturb

    return add


@fault("SIGKILL of a training job")
def _(study, undisturbed):
    run = study.start()
    os.kill(study.training(run), signal.SIGKILL)
    assert run.end()[0] == 1
    lost = study.again()
    study.check(undisturbed)
    return lost


@fault("SIGTERM of a training job (scancel, time limit)")
def _(study, undisturbed):
    run = study.start()
    os.kill(study.training(run), signal.SIGTERM)
    code, said = run.end()
    assert code == 1
    assert re.search(r"train stopped by SIGTERM after epoch \d+; run the same command again", said)
    assert "Traceback" not in said, said
    lost = study.again()
    study.check(undisturbed)
    return lost


@fault("SIGKILL of Snakemake; its job lives on")
def _(study, undisturbed):
    run = study.start()
    orphan = study.training(run)
    os.kill(orphan, signal.SIGSTOP)  # so that it outlives the start of the second run
    run.process.kill()
    run.end()
    unlock(study)
    second = study.start()
    second.until(lambda: f"held by process {orphan} on " in second.said.read_text())
    os.kill(orphan, signal.SIGCONT)
    code, said = second.end()
    assert code == 0, said
    assert f"going on after epoch {EPOCHS} from" in said
    study.check(undisturbed)
    return "nothing; the second job waited for the first"


@fault("SIGKILL of Snakemake and its jobs (power cut)")
def _(study, undisturbed):
    run = study.start()
    study.training(run)
    run.kill_all()
    unlock(study)
    lost = study.again()
    study.check(undisturbed)
    return lost


@fault("SIGTERM of Snakemake")
def _(study, undisturbed):
    run = study.start()
    study.training(run)
    run.process.terminate()
    run.end()
    said = study.finish()
    assert "rule train" not in said, said
    study.check(undisturbed)
    return "nothing; it waited for its job"


@fault("Ctrl-C")
def _(study, undisturbed):
    run = study.start()
    study.training(run)
    said = run.kill_all(signal.SIGINT)
    assert "train interrupted; run the same command again" in said, said
    lost = study.again()
    study.check(undisturbed)
    return lost


@fault("SIGKILL of all in the middle of an HDF5 write")
def _(study, undisturbed):
    half = []
    while not half:
        study.data.unlink(missing_ok=True)
        run = study.start(target := "results/tiny/data/phantom_duke.h5")
        run.until(lambda: any(study.data.parent.glob(".*.h5.*.tmp")))
        run.kill_all()
        unlock(study)
        half = [] if study.data.exists() else [*study.data.parent.glob(".*.h5.*.tmp")]
    study.finish(target)
    with open_store(study.data) as found, open_store(undisturbed.data) as expected:
        assert found.digest == expected.digest
    assert not any(path.exists() for path in half)
    return "the file, which is made again"


@fault("full disk under the checkpoints", mounts=True)
def _(study, undisturbed):
    with mounted(study.folder / "state", "2m") as state:
        run = study.start()
        study.training(run)
        fill(state)
        code, said = run.end()
        assert code == 1
        assert f"checkpoint.pt: found '{FULL}' in writing it" in said, said
        assert "Traceback" not in said, said
        (state / "filler").unlink()
        lost = study.again()
        study.check(undisturbed)
    return lost


@fault("full disk under the results", mounts=True)
def _(study, undisturbed):
    with mounted(study.folder / "results", "8m") as results:
        run = study.start()
        study.training(run)
        fill(results)
        code, said = run.end()
        assert code == 1
        assert f"model.safetensors: found '{FULL}' in writing it" in said, said
        assert not (study.results / "model.safetensors").exists()
        (results / "filler").unlink()
        lost = study.again()
        study.check(undisturbed)
    return lost


@fault("full disk under everything, Snakemake's own files too", mounts=True)
def _(study, undisturbed):
    with mounted(study.folder, "32m") as disk:
        run = study.start()
        study.training(run)
        fill(disk)
        assert run.end()[0] == 1
        (disk / "filler").unlink()
        reached = study.reached()
        study.run("--unlock")
        lost = study.again(reached)
        study.check(undisturbed)
    return lost


@fault("results become read-only", mounts=True)
def _(study, undisturbed):
    results = study.folder / "results"
    call("mount", "--bind", results, results)
    try:
        run = study.start()
        study.training(run)
        call("mount", "-o", "remount,bind,ro", results)
        code, said = run.end()
        assert code == 1
        assert "model.safetensors: found 'Read-only file system' in writing it" in said, said
        code, said = study.run()
        assert code == 1, said
        assert "Read-only file system" in said, said
    finally:
        call("umount", results)
    lost = study.again()
    study.check(undisturbed)
    return lost


@fault("broken checkpoint (cut off)")
def _(study, undisturbed):
    run = study.start()
    os.kill(study.training(run), signal.SIGKILL)
    run.end()
    path = study.state / "checkpoint.pt"
    os.truncate(path, path.stat().st_size // 2)
    reached = study.reached()
    said = study.finish()
    assert "checkpoint.pt: found no whole checkpoint" in said, said
    study.check(undisturbed)
    return f"{reached} of {EPOCHS} epochs"


@fault("NaN loss of another cell")
def _(study, undisturbed):
    (grid,), ways = STUDY["grids"], STUDY["mechanisms"]
    diverging = {"diverging": ways["non_private"] | {"learning_rate": 1e30}}
    grid = grid | {"mechanisms": [*diverging, *grid["mechanisms"]]}
    study.write(STUDY | {"mechanisms": diverging | ways, "grids": [grid]})
    trained = []
    for _ in range(2):
        code, said = study.run("--until", "train")
        assert code == 1, said
        assert re.search(r"error in train: epoch \d+: found a training loss of (nan|inf)", said)
        trained.append((study.results / "manifest.json").read_text())
    assert trained[0] == trained[1], "trained again"
    study.check(undisturbed)
    return "that cell; the others were trained"


@fault("out of memory")
def _(study, undisturbed):
    """The allocator of the system refuses: the address space of the job is limited."""
    dataset = STUDY["datasets"]["phantom_duke"] | {"image_size": [256, 256]}
    model = {"features": [16, 32], "num_groups": 2}
    changed = {"datasets": {"phantom_duke": dataset}, "models": {"unet": model}}
    study.write(STUDY | changed | {"training": TINY["training"] | {"batch_size": 4}})
    study.finish()
    plenty = load_file(study.results / "model.safetensors"), study.privacy()
    for folder in (study.results, study.state):
        shutil.rmtree(folder)
    (study.folder / "sitecustomize.py").write_text(LITTLE_MEMORY)
    said = study.finish(PYTHONPATH=str(study.folder))
    assert re.search(r"out of memory with \d images at once \(.*\); going on with fewer", said), (
        said
    )
    little = load_file(study.results / "model.safetensors"), study.privacy()
    for name, value in plenty[0].items():  # sums are rounded in another order
        np.testing.assert_allclose(little[0][name], value, rtol=1e-3, atol=1e-4)
    ratios = [found.pop("noise_ratio_realised") for found in (plenty[1], little[1])]
    assert abs(ratios[0] - ratios[1]) < 1e-3
    assert plenty[1] == little[1]
    sizes = study.history()["physical_batch_size"]
    return f"nothing; {sizes.iloc[0]} instead of 4 images at once"


# Python reads it at its start: the first training has so many bytes more than it began with.
LITTLE_MEMORY = """
import importlib.abc, importlib.machinery, resource, sys
from pathlib import Path

def limit(memory):
    run = memory.run

    def limited(make):
        def made(halvings):
            cell = make(halvings)
            if not halvings:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + 500 * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (most, -1))
            return cell

        try:
            return run(made)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

    memory.run = limited

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "dpmedbench.memory":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), limit(module))
        return spec

sys.meta_path.insert(0, Finder())
"""


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """The folder and what is in it on a small disk of its own, for so long."""
    content = folder.with_name(f"{folder.name}.content")
    shutil.copytree(folder, content, symlinks=True)
    call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        shutil.copytree(content, folder, symlinks=True, dirs_exist_ok=True)
        yield folder
    finally:
        call("umount", "--lazy", folder)


def fill(folder: Path) -> None:
    """Leave no room on the disk of a folder."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def unlock(study: Disturbed) -> None:
    """What Snakemake asks for before it goes on where a Snakemake was killed."""
    code, said = study.run()
    assert code == 1, said
    assert "--unlock" in said, said
    study.finish("--unlock")
