"""Which precision a device computes in."""

import pytest
import torch

from dpmedbench import precision
from dpmedbench.errors import UserError


def test_a_gpu_that_only_emulates_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    with pytest.raises(UserError, match=r"precision: found bfloat16 on Tesla T4, .* use float32"):
        precision.check("bfloat16", torch.device("cuda"))
    precision.check("float32", torch.device("cuda"))
    precision.check("bfloat16", torch.device("cpu"))
