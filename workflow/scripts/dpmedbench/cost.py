"""What training costs in time and memory."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

WARM_UP = 3  # steps not counted: allocation, autotuning and lazy initialisation


class StepTimer:
    """Seconds of each optimizer step, synchronised with the device.

    On CUDA events are recorded in the stream and read at the end of an epoch, so that timing adds
    no wait to a step.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.seconds: list[float] = []
        self._marks: list = []

    def start(self) -> None:
        """Mark the start of a step."""
        self._marks.append((self._now(), None))

    def stop(self) -> None:
        """Mark its end."""
        self._marks[-1] = (self._marks[-1][0], self._now())

    def forget(self) -> None:
        """Leave the last step out."""
        self._marks.pop()

    def wait(self) -> None:
        """Return when the device has done what it was told."""
        if self.cuda:
            torch.cuda.synchronize()

    def end_epoch(self) -> None:
        """Wait for the device and keep the seconds of the epoch's steps."""
        self.wait()
        if self.cuda:
            self.seconds += [start.elapsed_time(stop) / 1000 for start, stop in self._marks]
        else:
            self.seconds += [stop - start for start, stop in self._marks]
        self._marks = []

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def step_summary(seconds: list[float]) -> dict:
    """Quantiles of the step time after the warm-up (all steps where there are no more)."""
    measured = np.array(seconds[WARM_UP:] or seconds)
    p10, p50, p90 = np.quantile(measured, [0.1, 0.5, 0.9]).tolist()
    return {
        "step_seconds_p10": p10,
        "step_seconds_p50": p50,
        "step_seconds_p90": p90,
        "step_seconds_mean": float(measured.mean()),
        "steps_measured": len(measured),
    }


class PeakMemory:
    """Peak bytes between `start` and `stop`, the largest of all times: not of what goes on beside.

    `bytes` has those of this process on the host, and of its tensors on the GPU (None on CPU).
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.bytes = {"peak_host_bytes": 0, "peak_gpu_bytes": 0 if self._cuda else None}

    def start(self) -> None:
        """Forget the peaks so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        with contextlib.suppress(OSError):  # Linux only
            Path("/proc/self/clear_refs").write_text("5")

    def stop(self) -> None:
        """Keep the peaks since `start`."""
        self._keep("peak_host_bytes", _host_peak())
        if self._cuda:
            self._keep("peak_gpu_bytes", torch.cuda.max_memory_allocated(self.device))

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    def _keep(self, key: str, found: int) -> None:
        self.bytes[key] = max(self.bytes[key], found)


def _host_peak() -> int:
    with contextlib.suppress(OSError, TypeError):  # not Linux, or one that does not tell (gVisor)
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device, cells: int = 1) -> str:
    """The name of the GPU, with how many cells share it, or of the processor with its threads.

    Times are compared where it is the same.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + f", shared by {cells} cells" * (cells > 1)
    model = "CPU"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
            model = next(names, model)
    except OSError:
        pass
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' * (threads > 1)}"
