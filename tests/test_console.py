"""Progress lines, the log, and what a failing job says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
from jobs import SCRIPTS, job

from dpmedbench import console
from dpmedbench.errors import UserError
from dpmedbench.files import replacing, write_json
from dpmedbench.job import running


def test_a_pipe_gets_a_line_now_and_then_and_a_last_one(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    with console.Progress("cell", total=4) as progress:
        for done in range(1, 5):
            progress.update(done, f"loss {done}")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == ["cell: 1/4", "cell: 2/4", "cell: 3/4"]
    assert lines[3].startswith("cell: 4 done in")
    assert lines[3].endswith("loss 4")


def test_time_left_counts_from_where_it_went_on(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    progress = console.Progress("cell", total=100, done=90)
    progress.done = 95
    assert progress._left() == "10 s"


def test_a_file_gets_few_lines(tmp_path, monkeypatch):
    with open(tmp_path / "err", "w", encoding="utf-8") as err:
        monkeypatch.setattr("sys.stderr", err)
        list(console.track(range(1000), "records", total=1000))
    assert 8 <= len((tmp_path / "err").read_text().splitlines()) <= 12


def test_a_users_mistake_ends_in_its_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, running(job(tmp_path)):
        raise UserError("a.mat: found nothing, expected images; download it again")
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == "error in train: a.mat: found nothing, expected images; download it again\n"
    assert (tmp_path / "logs" / "job.log").read_text() == said


def test_a_library_from_elsewhere_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit), running(job(tmp_path, scripts=tmp_path)):
        raise AssertionError("the body must not run")
    assert f"expected in {tmp_path}/dpmedbench" in capsys.readouterr().err


def test_any_other_failure_leaves_its_trace_in_the_log(tmp_path):
    with pytest.raises(ZeroDivisionError), running(job(tmp_path)):
        raise ZeroDivisionError("of ours")
    assert "ZeroDivisionError: of ours" in (tmp_path / "logs" / "job.log").read_text()


TOLD = """
import os, signal, sys
from pathlib import Path
from jobs import job
from dpmedbench.files import replacing
from dpmedbench.job import running
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
with running(job(Path(sys.argv[1]))), replacing(Path(sys.argv[1]) / "out") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), int(sys.argv[2]))
    raise AssertionError("it went on")
"""


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(signal.SIGTERM, "train stopped by SIGTERM"), (signal.SIGINT, "train interrupted")],
)
def test_a_job_that_is_told_to_end_says_so_and_cleans_up(tmp_path, number, sentence):
    paths = os.pathsep.join([str(SCRIPTS), str(Path(jobs.__file__).parent)])
    command = [sys.executable, "-c", TOLD, str(tmp_path), str(int(number))]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 143
    assert done.stderr == f"{sentence}; run the same command again to go on\n"
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_a_log_on_a_full_disk_is_done_without(capsys):
    with console.logged("/dev/full"):
        console.say("a line")
        with console.Progress("cell", total=1) as progress:
            progress.update(1)
    assert capsys.readouterr().err.startswith("a line\n")


def test_a_full_disk_is_one_sentence(tmp_path, capsys):
    """Some libraries keep the number of the system's error, some its words, some its cause."""
    for error in (OSError(28, "No space left on device"), RuntimeError("No space left on device")):
        with pytest.raises(UserError, match="out: found 'No space left on device' in writing it"):
            failing(tmp_path / "out", error)
    error = RuntimeError("unexpected pos 576")
    with pytest.raises(RuntimeError):
        failing(tmp_path / "out", error)
    error.__context__ = OSError(28, "No space left on device")
    with pytest.raises(UserError, match="No space left"):
        failing(tmp_path / "out", error)
    with pytest.raises(SystemExit), running(job(tmp_path)):
        raise OSError(30, "Read-only file system", "results/a")
    said = capsys.readouterr().err
    assert said.startswith("error in train: [Errno 30] Read-only file system: 'results/a'; see to")


def failing(path, error):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    here, dead = os.uname().nodename, subprocess.Popen(["true"])
    dead.wait()
    gone = [tmp_path / f".out[1].{here}.{dead.pid}.tmp", tmp_path / ".out[1].elsewhere.2.tmp"]
    stays = [
        tmp_path / f".out[1].{here}.{os.getppid()}.tmp",
        tmp_path / ".out[1].elsewhere.1.tmp",
        tmp_path / f".out.{here}.{dead.pid}.tmp",
    ]
    for path in (*gone, *stays):
        path.touch()
    os.utime(gone[1], (1, 1))
    with replacing(tmp_path / "out[1]") as temporary:
        temporary.touch()
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stays)


def test_an_output_is_whole_or_absent(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
