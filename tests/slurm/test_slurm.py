"""A study on a SLURM cluster with two GPUs, where everything goes wrong once: `make test-slurm`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster
import pyarrow.parquet as pq
import pytest
import yaml
from checkout import ROOT, TINY, Checkout

PROFILE = Path("workflow", "profiles", "slurm")
EPOCHS = 40
STUDY = TINY | {
    "training": TINY["training"] | {"epochs": EPOCHS, "checkpoint_seconds": 0},
    "figures": ["training_loss"],
}
LARGER = STUDY | {
    "datasets": TINY["datasets"]
    | {
        "phantom_chest": {
            "loader": "chest_xray",
            "image_size": [32, 32],
            "split": {"method": "official"},
            "phantom": {"patients": 8, "scans": 1, "image_size": [64, 64]},
        }
    },
    "models": TINY["models"] | {"resnet18": {"features": [4, 8], "num_groups": 2}},
    "grids": [
        TINY["grids"][0] | {"seeds": [0, 1]},
        {"datasets": ["phantom_chest"], "models": ["resnet18"], "mechanisms": ["non_private"]},
    ],
}
CELLS = 5
# SLURM counts whole minutes; cells of one dataset get one, for a start
MINUTES = "1 if attempt == 1 and wildcards.dataset == 'phantom_chest' else 30"

pytestmark = pytest.mark.skipif(
    bool(cluster.missing()), reason=f"not installed: {', '.join(cluster.missing())}"
)


class Run:
    """A study in a checkout of its own, on a cluster of its own."""

    def __init__(self, folder, environment):
        self.environment = environment
        self.write, self.checkout = (there := Checkout(folder, STUDY)).write, there.folder
        profile = self.checkout / PROFILE / "config.yaml"
        options = yaml.safe_load(profile.read_text())
        options["set-resources"]["train"]["runtime"] = MINUTES
        options["set-threads"] = {"train": 1}  # where cores are few, threads wait for each other
        profile.write_text(yaml.safe_dump(options))
        self.busy = 0

    @contextlib.contextmanager
    def started(self):
        """Snakemake, killed at the end if it did not end by itself; it speaks into said.log."""
        command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml"]
        quick = ["--slurm-status-command=squeue", "--slurm-init-seconds-before-status-checks=1"]
        with open(self.checkout / "said.log", "a") as said:
            process = subprocess.Popen(
                [*command, "--workflow-profile", str(PROFILE), *quick],
                cwd=self.checkout,
                env=self.environment,
                stdout=said,
                stderr=said,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def call(self, command):
        """Run a command of the documentation, for the study."""
        study = " --configfile study.yaml" if command.startswith("snakemake") else ""
        subprocess.run(
            ["bash", "-c", command + study], cwd=self.checkout, env=self.environment, check=True
        )

    def said(self):
        return (self.checkout / "said.log").read_text()

    def ask(self, command):
        return cluster.ask(self.environment, command)

    def training(self):
        """{cell: (process, SLURM job, GPU)} of the jobs that hold the lock of their cell."""
        found = {}
        for lock in self.checkout.glob("state/**/lock"):
            holder = re.match(r"process (\d+) on .* \(SLURM job (\d+)\)", lock.read_text())
            environ = Path("/proc", holder[1], "environ") if holder else lock
            with contextlib.suppress(OSError):  # it has ended
                if gpu := re.search(r"\0CUDA_VISIBLE_DEVICES=(\w+)", environ.read_text()):
                    found[lock.parent] = int(holder[1]), holder[2], gpu[1]
        return found

    def look(self):
        """What trains; no more jobs than GPUs, each with a GPU of its own."""
        jobs = self.ask("squeue --noheader --partition gpu --states RUNNING --format %A").split()
        assert len(jobs) <= 2, jobs
        self.busy = max(self.busy, len(jobs))
        training = self.training()
        gpus = [gpu for _, job, gpu in training.values() if job in jobs]
        assert len(set(gpus)) == len(gpus), training
        return training

    def wait_for(self, what, found, process, seconds=900):
        """What `found` returns of what trains, once it is true, while a process runs."""
        deadline = time.monotonic() + seconds
        while not (result := found(self.look())):
            assert process.poll() is None, f"ended before: {what}\n{self.said()[-5000:]}"
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}\n{self.said()[-5000:]}"
            time.sleep(0.05)
        return result

    def end(self, process, seconds=1800):
        """Wait for Snakemake to end well."""
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            assert time.monotonic() < deadline, f"no end in {seconds} s\n{self.said()[-5000:]}"
            self.look()
            time.sleep(0.5)
        assert process.returncode == 0, self.said()[-5000:]

    def in_the_middle(self, dataset, snakemake):
        """A cell that writes checkpoints now: its state, process and SLURM job."""
        since = time.time()

        def found(training):
            for cell, (process, job, _) in training.items():
                file = cell / "checkpoint.pt"
                if dataset in cell.parts and file.exists() and file.stat().st_mtime > since:
                    return cell, process, job
            return None

        return self.wait_for(f"a cell of {dataset} trains", found, snakemake)

    def log(self, cell):
        """The log of a cell's training, as far as there is one."""
        name = cell.relative_to(self.checkout / "state" / "tiny")
        path = self.checkout / "logs" / "tiny" / "train" / f"{name}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def run(tmp_path):
    with cluster.running(tmp_path / "cluster") as environment:
        yield Run(tmp_path / "checkout", environment)
    for process in Path("/proc").glob("[0-9]*"):  # SLURM forgets the parent of a stopped job
        with contextlib.suppress(OSError):
            if tmp_path in Path(os.readlink(process / "cwd")).parents:
                os.kill(int(process.name), signal.SIGKILL)


def documented(heading):
    """The commands that docs/cluster.md gives below a heading."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    section = re.search(rf"^#+ {heading}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


def test_a_study_survives_what_happens_on_a_cluster(run):
    began = time.monotonic()
    with run.started() as snakemake:
        stuck, process, _ = run.in_the_middle("phantom_duke", snakemake)
        os.kill(process, signal.SIGSTOP)
    # Snakemake is killed, its jobs are not; the next one sends a second job for the same cell
    *clean_up, again = documented("After a crash")
    assert again == "snakemake --workflow-profile workflow/profiles/slurm"
    run.call(clean_up[-1])
    with run.started() as snakemake:
        run.wait_for("it waits", lambda training: "waiting for" in run.log(stuck), snakemake)
        assert re.search(rf"held by process {process} on .*SLURM job \d+", run.log(stuck))
        assert run.training()[stuck][0] == process
    for command in clean_up:
        run.call(command)
    cluster.wait(lambda: not run.training(), "the jobs end")

    run.write(LARGER)
    with run.started() as snakemake:
        cancelled, _, job = run.in_the_middle("phantom_duke", snakemake)
        run.ask(f"scancel {job}")
        overdue, process, late = run.in_the_middle("phantom_chest", snakemake)
        os.kill(process, signal.SIGSTOP)
        run.end(snakemake)

    jobs = run.ask("squeue --noheader --states all --format %A|%P|%T|%l|%m").splitlines()
    print(f"{len(jobs)} jobs in {time.monotonic() - began:.0f} s", *jobs, sep="\n")
    state = {line.split("|")[0]: line.split("|")[2] for line in jobs}
    assert state[job] == "CANCELLED"
    assert state[late] == "TIMEOUT"
    for cell in (stuck, cancelled, overdue):
        assert "going on after epoch" in run.log(cell)
    assert run.busy == 2
    results = run.checkout / "results" / "tiny"
    assert (results / "report.html").exists()
    histories = list(results.glob("cells/**/history.parquet"))
    assert len(histories) == CELLS
    for path in histories:
        assert pq.read_metadata(path).num_rows == EPOCHS
        manifest = json.loads(path.with_name("manifest.json").read_text())
        assert manifest["cuda_visible_devices"] in ("0", "1")
