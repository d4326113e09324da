"""Which GPU a job takes, on pretended ones, and that two jobs never hold one lock."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkout import TINY

from dpmedbench import cells, config, devices, locks
from dpmedbench.errors import UserError

SMI = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without GPUs and without locks; `set_smi` gives it some."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TRIES", 0.02)
    for name in (devices.VISIBLE, *devices.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "DEVICE_FILES", list)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    set_smi(monkeypatch, tmp_path, None)


def set_smi(monkeypatch, folder, text):
    """Pretend that nvidia-smi lists `text`; None: that it fails, as without a driver."""
    there = folder / "bin"
    there.mkdir(exist_ok=True)
    smi = there / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\nexit 9\n" if text is None else f"#!/bin/sh\ncat <<'END'\n{text}END\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{there}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("0,1", ["0", "1"]),
        (" 2 , GPU-8932f937,MIG-GPU-1/2/0", ["2", "GPU-8932f937", "MIG-GPU-1/2/0"]),
        ("1,-1,0", ["1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_what_was_made_visible_is_what_may_be_used(given, names, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, given)
    assert devices.visible() == names


def test_else_it_is_every_gpu_or_its_parts(tmp_path, monkeypatch):
    assert devices.visible() == []
    set_smi(monkeypatch, tmp_path, SMI)
    assert devices.visible() == ["GPU-aaaa", "MIG-cccc", "MIG-dddd"]


def test_a_job_sees_its_gpu_alone_while_it_holds_it(monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "4,7")
    with devices.slot("auto"):
        assert os.environ[devices.VISIBLE] == "4"
        monkeypatch.setenv(devices.VISIBLE, "4,7")
        with devices.slot("cuda"):
            assert os.environ[devices.VISIBLE] == "7"
    assert os.environ[devices.VISIBLE] == "4,7"


def test_nothing_is_hidden_on_the_cpu(tmp_path, monkeypatch):
    with devices.slot("auto"):
        assert devices.VISIBLE not in os.environ
    monkeypatch.setenv(devices.VISIBLE, "3")
    with devices.slot("cpu"), devices.slot("cpu"):
        assert os.environ[devices.VISIBLE] == "3"
    assert not list(tmp_path.glob("dpmedbench-*"))


def test_a_gpu_is_one_gpu_by_whichever_name(tmp_path, monkeypatch):
    """Number, UUID, a part of it; and GPU 0 of two jobs may be two GPUs, by cgroups."""
    set_smi(monkeypatch, tmp_path, SMI)
    for name in ("0", "GPU-aaaa", "GPU-aa"):
        monkeypatch.setenv(devices.VISIBLE, name)
        with devices.slot("auto"):
            assert os.environ[devices.VISIBLE] == name
        assert [path.name for path in locks_in(tmp_path)] == ["GPU-aaaa.0.lock"]
    set_smi(monkeypatch, tmp_path, "GPU 0: NVIDIA H100 (UUID: GPU-eeee)\n")
    monkeypatch.setenv(devices.VISIBLE, "0")
    with devices.slot("auto"):
        assert len(locks_in(tmp_path)) == 2


def locks_in(folder):
    return sorted(folder.glob("dpmedbench-*/*.lock"))


def test_gpus_are_shared_only_where_none_is_free(monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "0,1")
    found = []
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            monkeypatch.setenv(devices.VISIBLE, "0,1")
            stack.enter_context(devices.slot("auto", 2))
            found.append(os.environ[devices.VISIBLE])
    assert found == ["0", "1", "0", "1"]


CONTENDER = """
import os, sys, time
from pathlib import Path
from dpmedbench import devices, locks
locks.SECONDS_BETWEEN_TRIES = 0.02
print("ready", flush=True)
input()
with devices.slot("auto", int(sys.argv[2])):
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    with open(sys.argv[1], "a") as file:
        os.write(file.fileno(), f"{time.monotonic_ns()} {os.getpid()} {gpu} +\\n".encode())
        time.sleep(float(sys.argv[3]))
        os.write(file.fileno(), f"{time.monotonic_ns()} {os.getpid()} {gpu} -\\n".encode())
"""


def contender(journal, cells_per_gpu=1, seconds=0.1, gpus="0,1"):
    """A process that, told to go, takes a slot for some time and notes when in `journal`."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(devices.__file__).parents[1]),
        devices.VISIBLE: gpus,
    }
    return subprocess.Popen(
        [sys.executable, "-c", CONTENDER, str(journal), str(cells_per_gpu), str(seconds)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("cells_per_gpu", [1, 2])
def test_contenders_take_turns(tmp_path, cells_per_gpu):
    """Eight processes, two GPUs: never more at once on one than allowed, and all get on."""
    journal = tmp_path / "journal"
    jobs = [contender(journal, cells_per_gpu) for _ in range(8)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        print("go", file=job.stdin, flush=True)
    said = [job.communicate(timeout=60)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 8, said
    at_once, most = {"0": 0, "1": 0}, {"0": 0, "1": 0}
    events = sorted(line.split() for line in journal.read_text().splitlines())
    assert len(events) == 16
    for _, _, gpu, change in events:
        at_once[gpu] += 1 if change == "+" else -1
        most[gpu] = max(most[gpu], at_once[gpu])
    assert most == {"0": cells_per_gpu, "1": cells_per_gpu}
    waited = [text for text in said if text]
    assert all(text.startswith("waiting for a GPU (0, 1), held by ") for text in waited), said
    assert len(waited) >= 8 - 2 * cells_per_gpu


def test_a_killed_job_lets_go_of_its_gpu(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    holder = contender(first, seconds=60, gpus="0")
    print("go", file=holder.stdin, flush=True)
    until(first.exists)
    waiting = contender(second, seconds=0, gpus="0")
    print("go", file=waiting.stdin, flush=True)
    assert f"held by process {holder.pid} on " in waiting.stderr.readline()
    assert not second.exists()
    holder.send_signal(signal.SIGKILL)
    assert waiting.wait(timeout=20) == 0
    assert holder.wait() == -signal.SIGKILL
    assert " 0 +" in second.read_text()


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_a_machine_without_a_gpu_trains_on_its_cpu_and_says_so(capsys):
    assert devices.choose("auto") == torch.device("cpu")
    assert capsys.readouterr().err == "no CUDA device: training on the CPU\n"
    assert devices.choose("cpu") == torch.device("cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wanted", "variables", "sentence"),
    [
        ("cuda", {}, r"found cuda and GPUs \[\], of which torch .* can use none"),
        ("auto", {"SLURM_JOB_ID": "7"}, r"found auto in a job with SLURM_JOB_ID and GPUs \[\]"),
        ("auto", {devices.VISIBLE: "0"}, r"found auto and GPUs \[0\], .* set training.device to"),
    ],
)
def test_a_cpu_is_not_taken_where_a_gpu_is_expected(wanted, variables, sentence, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        devices.choose(wanted)
    assert devices.choose("cpu") == torch.device("cpu")


def pretend(monkeypatch, capability, built_for):
    """That torch sees a GPU, and is built for some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)


@pytest.mark.parametrize(
    ("capability", "runs"), [((7, 0), False), ((7, 5), True), ((8, 6), True), ((9, 0), True)]
)
def test_a_gpu_that_torch_was_not_built_for_is_one_sentence(capability, runs, monkeypatch):
    pretend(monkeypatch, capability, ["sm_75", "sm_80", "sm_90a", "compute_120"])
    if runs:
        assert devices.choose("auto") == torch.device("cuda")
        return
    with pytest.raises(UserError, match=r"found Tesla V100, for which torch .* has no kernels"):
        devices.choose("auto")
    assert devices.choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [((12, 1), ["sm_80", "compute_120"], True), ((10, 0), ["sm_90", "compute_120"], False),
     ((8, 0), ["sm_86"], False), ((9, 4), ["gfx942"], True), ((9, 4), [], True)],
)  # fmt: skip
def test_newer_gpus_compile_what_is_made_for_older_ones(capability, built_for, runs):
    assert devices._has_kernels(capability, built_for) is runs


def test_a_gpu_is_seen_without_nvidia_smi(monkeypatch):
    """In a container that was started without the driver, the device files are still there."""
    monkeypatch.setattr(devices, "DEVICE_FILES", lambda: ["/dev/nvidia0", "/dev/nvidia1"])
    assert devices.visible() == ["0", "1"]
    with pytest.raises(UserError, match=r"GPUs \[0, 1\], of which torch .* can use none"):
        devices.choose("auto")


def test_cuda_is_taken_where_torch_sees_it(monkeypatch):
    pretend(monkeypatch, (8, 0), ["sm_80"])
    assert devices.choose("auto") == devices.choose("cuda") == torch.device("cuda")
    assert devices.choose("cpu") == torch.device("cpu")


def test_locks_in_a_folder_of_another_user_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "0")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"dpmedbench-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="set TMPDIR"), devices.slot("auto"):
        raise AssertionError("the body must not run")


def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with (
        pytest.raises(UserError, match=r"lock: found a file system that gives no lock \(Function"),
        locks.held([tmp_path / "lock"], "the state"),
    ):
        raise AssertionError("the body must not run")


def test_the_holder_is_named_with_its_scheduler_s_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with locks.held([tmp_path / "a" / "lock"], "it"):
        name = f"process {os.getpid()} on {os.uname().nodename} (SLURM job 12)"
        assert (tmp_path / "a" / "lock").read_text() == name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cells_per_gpu", 2),
        ("device", "cuda"),
        ("checkpoint_seconds", 7),
        ("physical_batch_size", 1),
    ],
)
def test_how_a_cell_is_executed_is_no_reason_to_train_again(key, value):
    study = config.load(TINY)
    other = config.load(TINY | {"training": TINY["training"] | {key: value}})
    (cell, *_) = cells.every(study)
    assert cells.settings(study, cell) == cells.settings(other, cell)
    assert cells.execution(other) == cells.execution(study) | {key: value}
