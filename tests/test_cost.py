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
