"""A throw-away SLURM cluster on the loopback: one node, with GPUs that are only pretended.

    python tests/slurm/cluster.py FOLDER      starts a shell that has it; exit ends it

Needs munge, slurmctld and slurmd (Debian: `apt-get install --no-install-recommends slurm-wlm
munge`); root or not. Everything it writes is in FOLDER.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "setpriv")
SYSTEM = "/usr/sbin:/sbin"
# SLURM numbers the GPUs by character devices; without cgroups nothing guards them.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
ReturnToService=2
KillWait=2
MinJobAge=86400
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory={memory} \
Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes={host} MaxTime=INFINITE
"""


def missing() -> list[str]:
    """Commands that are needed and not installed."""
    path = f"{os.environ['PATH']}:{SYSTEM}"
    return [name for name in NEEDED if not shutil.which(name, path=path)]


@contextlib.contextmanager
def running(folder: Path, gpus: int = 2, cpus: int = 8, memory: int = 64000) -> Iterator[dict]:
    """Within the context the cluster is up; yields the environment to call SLURM in.

    Partitions are `cpu` (the default) and `gpu`; `memory` is in MB. CPUs and memory are what the
    node claims to have. At the end all jobs are cancelled, and the daemons ended; they end by
    themselves where this process dies. Raises TimeoutError where the node does not come up.
    """
    folder = folder.resolve()
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    environment = _configure(folder, gpus, cpus, memory)
    daemons = {
        "munged": [
            "--foreground", "--force", f"--socket={folder}/munge.sock", "--num-threads=2",
            f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
        ],
        "slurmctld": ["-D", "-f", f"{folder}/slurm.conf"],
        "slurmd": ["-D", "-f", f"{folder}/slurm.conf"],
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, options in daemons.items():
            stack.enter_context(_daemon(folder, environment, name, options))
            if name == "munged":
                wait(lambda: (folder / "munge.sock").exists(), "munged makes its socket")
        state = "sinfo --noheader --partition cpu --format %T"
        wait(lambda: ask(environment, state) == "idle", f"the node is idle; see {folder}/*.log")
        try:
            yield environment
        finally:
            ask(environment, f"scancel --user {_user()}")
            wait(lambda: not ask(environment, "squeue --noheader"), "the jobs have ended")


def ask(environment: dict, command: str) -> str:
    """What a SLURM command prints."""
    done = subprocess.run(
        command.split(), env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    return done.stdout.strip()


def wait(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return once it is ready; TimeoutError, saying what for, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.1)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _configure(folder: Path, gpus: int, cpus: int, memory: int) -> dict:
    """Write key and configuration; the environment of the cluster's users."""
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    host = socket.gethostname().partition(".")[0]
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in free]
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=host, ports=ports, user=_user(), folder=folder, cpus=cpus,
            memory=memory, gpus=gpus,
        )
    )  # fmt: skip
    lines = [f"NodeName={host} Name=gpu File={device}\n" for device in DEVICES[:gpus]]
    (folder / "gres.conf").write_text("AutoDetect=off\n" + "".join(lines))
    # Snakemake drops SLURM_CONF within a job, as every SLURM_* variable; a real cluster has its
    # configuration where the commands look for it.
    for name in ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun"):
        shim = folder / "bin" / name
        shim.write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {shutil.which(name)} "$@"\n')
        shim.chmod(0o755)
    python = Path(sys.executable).parent
    path = f"{folder}/bin:{python}:{os.environ['PATH']}:{SYSTEM}"
    return os.environ | {"SLURM_CONF": str(config), "PATH": path}


@contextlib.contextmanager
def _daemon(folder: Path, environment: dict, name: str, options: list[str]) -> Iterator[None]:
    command = ["setpriv", "--pdeathsig", "TERM", name, *options]
    with open(folder / f"{name}.out.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Run a shell that has the cluster."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with running(Path(sys.argv[1])) as environment:
        return subprocess.run([os.environ.get("SHELL", "sh")], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
