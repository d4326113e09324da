"""What training costs: the seconds of a step, the peak of memory."""

from pathlib import Path

import pytest
import torch

from dpmedbench import cost


def test_steps_to_warm_up_do_not_count_where_there_are_others():
    names = [f"step_seconds_{part}" for part in ("p10", "p50", "p90", "mean")]
    found = cost.step_summary([9.0, 99.0, 999.0, *map(float, range(11))])
    assert [found[name] for name in names] == pytest.approx([1.0, 5.0, 9.0, 5.0])
    assert found["steps_measured"] == 11
    few = cost.step_summary([1.0, 3.0])
    assert (few["step_seconds_p50"], few["steps_measured"]) == (2.0, 2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_the_peak_is_of_training_alone():
    peak = cost.PeakMemory(torch.device("cpu"))
    big = torch.ones(50_000_000)  # 200 MB
    del big
    peak.start()
    before = torch.ones(25_000_000)
    peak.stop()
    found = peak.bytes["peak_host_bytes"]
    del before
    after = torch.ones(50_000_000)
    peak.start()
    peak.stop()
    del after
    assert peak.bytes["peak_gpu_bytes"] is None
    largest = peak.bytes["peak_host_bytes"]
    assert largest - found == pytest.approx(100e6, rel=0.2)
    peak.start()
    peak.stop()
    assert peak.bytes["peak_host_bytes"] == largest


def test_a_system_that_does_not_tell_its_peak_has_one_all_the_same(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "Name: python\nVmRSS: 9 kB\n")
    monkeypatch.setattr(Path, "write_text", lambda path, text: 0)
    peak = cost.PeakMemory(torch.device("cpu"))
    peak.start()
    peak.stop()
    assert peak.bytes["peak_host_bytes"] > 1e7
