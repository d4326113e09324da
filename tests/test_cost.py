"""What training costs: the peak of memory."""

from pathlib import Path

import pytest
import torch

from dpmedbench import cost


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
    assert peak.bytes["peak_host_bytes"] - found == pytest.approx(100e6, rel=0.2)


def test_a_system_that_does_not_tell_its_peak_has_one_all_the_same(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "Name: python\nVmRSS: 9 kB\n")
    monkeypatch.setattr(Path, "write_text", lambda path, text: 0)
    peak = cost.PeakMemory(torch.device("cpu"))
    peak.start()
    peak.stop()
    assert peak.bytes["peak_host_bytes"] > 1e7
