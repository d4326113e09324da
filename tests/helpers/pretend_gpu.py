"""A GPU that is not there: what would wait for it, found on any machine.

    gpu = PretendGPU(monkeypatch)
    with gpu:
        x = torch.ones(3, device=gpu.device)
        x.sum().item()
    gpu.waits  # ["_local_scalar_dense"]

Its tensors say that they lie on torch's meta device, but have values, which the CPU computes.
"""

from __future__ import annotations

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class PretendGPU(TorchDispatchMode):
    """While entered, `device` has values; `waits` gets each operation that waits for the device.

    An operation on tensors of both devices raises RuntimeError, as it does with CUDA. Autocast is
    off. Tensors that were made within are of no use outside, and `torch.tensor` with a device,
    which would wait, makes none.
    """

    def __init__(self, monkeypatch) -> None:
        super().__init__()
        self.device = torch.device("meta")
        self.waits: list[str] = []
        monkeypatch.setattr(torch, "Generator", _Generator)
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())

    def __torch_dispatch__(self, function, _, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in tensors if isinstance(x, _Far)]
        to = args[0].device if name == "copy_" else kwargs.get("device")
        to = to or (self.device if there else None)
        if not there and to != self.device:
            return function(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            upwards = not isinstance(tensors[-1], _Far)  # the source
            asynchronous = upwards and (kwargs.get("non_blocking") or args[-1] is True)
            if (to == self.device) == upwards and not asynchronous:
                self.waits.append("copy up" if upwards else "copy down")
        elif name in INDEXING:
            indices = [x for x in tree_leaves(args[1]) if isinstance(x, torch.Tensor)]
            if not isinstance(args[0], _Far):
                raise RuntimeError(f"{function}: found tensors on both devices")
            if any(x.dtype == torch.bool or not isinstance(x, _Far) for x in indices):
                self.waits.append(name)
        elif there and any(x.ndim for x in tensors if not isinstance(x, _Far)):
            raise RuntimeError(f"{function}: found tensors on both devices")
        elif READS & set(function.tags):
            self.waits.append(name)
        if "device" in kwargs:
            kwargs = kwargs | {"device": torch.device("cpu")}
        found = function(*tree_map(_near, args), **tree_map(_near, kwargs))
        if to != self.device:
            return found
        same = {id(_near(x)): x for x in tensors}  # what is written in place stays what it is
        return tree_map(
            lambda x: same.get(id(x), _Far(x)) if isinstance(x, torch.Tensor) else x, found
        )


class _Far(torch.Tensor):
    """A tensor of the pretended device; `near` has its values."""

    @staticmethod
    def __new__(cls, near):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device="meta",
        )
        made.near = near
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function}: found a tensor of a pretended GPU that was left")

    def tolist(self):
        return self.cpu().tolist()


class _Generator(torch.Generator):
    """A generator of any device, which draws on the CPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self._device = torch.device(device)

    @property
    def device(self):
        return self._device


def _near(x):
    return x.near if isinstance(x, _Far) else x
