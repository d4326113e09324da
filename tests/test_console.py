"""Progress lines, the log, and what a failing job says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dpmedbench import console
from dpmedbench.errors import UserError
from dpmedbench.files import replacing, write_json
from dpmedbench.job import running

SCRIPTS = Path(console.__file__).parents[1]


def job(tmp_path, scripts=SCRIPTS):
    log = [str(tmp_path / "logs" / "job.log")]
    return SimpleNamespace(log=log, rule="train", scriptdir=str(scripts))


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
