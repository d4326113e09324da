"""Where the draws of a private run come from.

`Seeded` repeats itself from a seed (research mode); `Secure` takes a key from the operating system
that nobody can know or repeat. Samplers and the noise take either.
"""

from __future__ import annotations

import hashlib
import math
import secrets

import numpy as np
import torch


class Seeded:
    """Torch generators under a seed: repeatable bit for bit, and so open to who knows the seed.

    Indices and uniforms are drawn on the CPU, normals on `device` by that device's generator.
    """

    title = "seeded (research mode)"

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.host = torch.Generator().manual_seed(seed)
        # one stream on the CPU: two of one seed would draw the same numbers
        on_host = torch.device(device).type == "cpu"
        self.device = self.host if on_host else torch.Generator(device).manual_seed(seed)

    def uniform(self, n: int) -> torch.Tensor:
        """(n,) float64 on the CPU, uniform on [0, 1)."""
        return torch.rand(n, generator=self.host, dtype=torch.float64)

    def choice(self, n: int, k: int) -> torch.Tensor:
        """(k,) int64 on the CPU: distinct indices below `n`, every subset as likely."""
        return self.permutation(n)[:k]

    def permutation(self, n: int) -> torch.Tensor:
        """(n,) int64 on the CPU: the indices below `n` in random order."""
        return torch.randperm(n, generator=self.host)

    def normal(self, shape: tuple, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Independent standard normals of `shape` on `device`, the one given at construction."""
        return torch.randn(shape, generator=self.device, dtype=dtype, device=device)

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` goes on from: plain tensors."""
        return {"host": self.host.get_state(), "device": self.device.get_state()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state`, bit for bit."""
        self.host.set_state(state["host"].cpu())
        self.device.set_state(state["device"].cpu())


class Secure:
    """ChaCha with 20 rounds under a 256-bit key from the operating system.

    Everything is drawn on the CPU and copied to the device. The key is never written: `state` is
    empty, and a run that goes on from a checkpoint draws a new key, so no run can be repeated.

    Normals follow Holohan & Braghin 2021 (arXiv:2107.10138, section 5.1), as Opacus'
    `secure_mode` did: the sum of four in float64, halved, so that the bits of a noised value do
    not give away the generator's uniforms. It is a mitigation and no proof of differential
    privacy on floating-point numbers: the gradients and their sum with the noise are rounded to
    float32, whose gaps depend on the value released (Mironov 2012, doi:10.1145/2382196.2382264).
    Nor does it hide the key from who can read the memory of the process, or the time it takes.
    """

    title = "secure (ChaCha20, key from the operating system)"

    def __init__(self):
        from randomgen import ChaCha

        self._generator = np.random.Generator(ChaCha(key=secrets.randbits(256), rounds=20))

    def uniform(self, n: int) -> torch.Tensor:
        """(n,) float64 on the CPU, uniform on [0, 1)."""
        return torch.from_numpy(self._generator.random(n))

    def choice(self, n: int, k: int) -> torch.Tensor:
        """(k,) int64 on the CPU: distinct indices below `n`, every subset as likely."""
        return torch.from_numpy(self._generator.choice(n, k, replace=False))

    def permutation(self, n: int) -> torch.Tensor:
        """(n,) int64 on the CPU: the indices below `n` in random order."""
        return torch.from_numpy(self._generator.permutation(n))

    def normal(self, shape: tuple, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Independent standard normals of `shape`, drawn in float64, as `dtype` on `device`."""
        total = self._generator.standard_normal(math.prod(shape))
        for _ in range(3):
            total += self._generator.standard_normal(len(total))
        total /= 2
        return torch.from_numpy(total).view(shape).to(device, dtype)

    def state(self) -> dict:
        """Nothing: a key on disk would no longer be secret."""
        return {}

    def restore(self, state: dict) -> None:
        """Nothing: the key drawn at construction is new."""

    def __reduce__(self):
        raise TypeError("Secure holds a key, which is never copied or written")


Randomness = Seeded | Secure


def stream(seed: int | None, purpose: str, device: torch.device | str = "cpu") -> Randomness:
    """Where the draws for one purpose come from; without a seed from the operating system."""
    return Secure() if seed is None else Seeded(stream_seed(seed, purpose), device)


def stream_seed(seed: int, purpose: str) -> int:
    """A seed of 63 bits for one purpose: streams of one seed do not depend on each other."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
