"""Which GPU a job trains on.

Snakemake counts the jobs that want a GPU (`--resources gpu=N`) but gives none out: each job takes
a free one itself, among those that a scheduler or the user made visible, before torch is imported.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from glob import glob
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench import locks
from dpmedbench.console import say
from dpmedbench.errors import UserError

if TYPE_CHECKING:
    import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")  # set in their jobs
DEVICE_FILES = partial(glob, "/dev/nvidia[0-9]*")


@contextlib.contextmanager
def slot(wanted: str, cells_per_gpu: int = 1) -> Iterator[None]:
    """Hold one of `cells_per_gpu` shares of a GPU, the only one that CUDA sees in the context.

    Waits where all are held by other processes of this user on this machine. Nothing is held, and
    nothing hidden, where there is no GPU or `wanted` (training.device) is cpu.
    """
    names = [] if wanted == "cpu" else visible()
    if not names:
        yield
        return
    gpus, folder = _listed(), _folder()
    shares = [
        (name, folder / f"{_identity(name, gpus).replace('/', '_')}.{share}.lock")
        for share in range(cells_per_gpu)  # all first shares come before any second one
        for name in names
    ]
    before = os.environ.get(VISIBLE)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers as nvidia-smi has them
    with locks.held([path for _, path in shares], f"a GPU ({', '.join(names)})") as number:
        os.environ[VISIBLE] = shares[number][0]
        try:
            yield
        finally:
            os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})


def visible() -> list[str]:
    """The GPUs that this process may use, named as CUDA_VISIBLE_DEVICES names them.

    Those of CUDA_VISIBLE_DEVICES where it is set, up to the first that is none (-1, NoDevFiles), as
    CUDA reads it; else all that nvidia-smi lists, the parts of a GPU that is divided (MIG) in its
    place; in a container that has no nvidia-smi, a number for each device file.
    """
    given = os.environ.get(VISIBLE)
    if given is None:
        listed = [name for gpu, *parts in _listed() for name in parts or [gpu]]
        return listed or [str(number) for number, _ in enumerate(DEVICE_FILES())]
    names = (name.strip() for name in given.split(","))
    return list(takewhile(lambda name: re.fullmatch(r"\d+|(GPU|MIG)-.+", name), names))


def choose(wanted: str) -> torch.device:
    """The device to train on; `wanted` is auto, cpu or cuda (training.device).

    Raises:
        UserError: where torch sees no CUDA device but cuda is wanted, or auto in a scheduler's job
            or on a machine with a GPU, where the CPU would be a mistake that takes days; where
            this build of torch is not made for the GPU.
    """
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        if not _has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list()):
            raise UserError(
                f"training.device: found {torch.cuda.get_device_name()}, for which torch "
                f"{torch.__version__} has no kernels; install a build of torch that has them "
                "(docs/environments.md, older GPUs), or set training.device to cpu"
            )
        return torch.device("cuda")
    if wanted != "cpu":
        jobs = [name for name in SCHEDULERS if name in os.environ]
        if wanted == "cuda" or jobs or visible():
            where = f" in a job with {jobs[0]}" if jobs else ""
            raise UserError(
                f"training.device: found {wanted}{where} and GPUs [{', '.join(visible())}], of "
                f"which torch {torch.__version__} can use none; ask the scheduler for a GPU, "
                "install a CUDA build of torch for this driver, or set training.device to cpu"
            )
        say("no CUDA device: training on the CPU")
    return torch.device("cpu")


def _listed() -> list[list[str]]:
    """For each GPU of the machine its UUID, followed by those of its parts; empty without any."""
    try:
        text = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = re.split(r"^GPU ", text, flags=re.MULTILINE)[1:]
    return [re.findall(r"UUID: ([^)]+)\)", gpu) for gpu in gpus]


def _has_kernels(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether a build of torch runs on a GPU: binaries of its generation, or code to compile.

    `built_for` as `torch.cuda.get_arch_list` gives it: sm_75, sm_90a, compute_120.
    """
    known = [found for name in built_for if (found := re.match(r"(sm|compute)_(\d+)(\d)", name))]
    return not known or any(
        (int(major), int(minor)) <= capability
        and (kind == "compute" or int(major) == capability[0])
        for kind, major, minor in (found.groups() for found in known)
    )


def _identity(name: str, gpus: list[list[str]]) -> str:
    """What a GPU is called in every process: two jobs' GPU 0 may be different ones (cgroups)."""
    if name.isdigit():
        return gpus[int(name)][0] if int(name) < len(gpus) else name
    return next((uuid for gpu in gpus for uuid in gpu if uuid.startswith(name)), name)


def _folder() -> Path:
    """The folder of this user's locks on this machine, whichever study they train for."""
    folder = Path(tempfile.gettempdir(), f"dpmedbench-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UserError(
            f"{folder}: found another user's, expected a folder of this user; set TMPDIR"
        )
    return folder
