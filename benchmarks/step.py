"""Where the time of an epoch goes, and ordinary training against a plain PyTorch loop.

    python benchmarks/step.py [--networks unet resnet18] [--side 224] [--steps 3] [--rounds 3]
        [--device auto] [--out results/benchmarks/step.parquet]

Trains cells on made-up images as the workflow does, one epoch to warm up and one that counts. Time
inside a part goes to the innermost part that it is spent in, but for validation, which has all of
its own; on a GPU each part waits for the device. The plain loop has a DataLoader (without and with
workers), the same network, loss and optimiser, and no validation: against it stands the training
of a cell that nobody looked into. All take turns, round by round, and the median round of each
counts. Exit code 1 where less than 90 % of an epoch is arithmetic of
the model, or ordinary training is slower than the plain loop by more than 5 %.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "helpers")]

BATCH = {"unet": 10, "nested_unet": 10, "resnet18": 32}
MECHANISMS = ("none", "bookkeeping", "opacus")
ARITHMETIC = ("forward", "loss", "backward and clipping", "noise", "update", "validation")
OTHER = ("sampling and contract", "images to floats", "checkpoint", "all else")
ORDINARY = "ordinary cell"
LEAST_ARITHMETIC, MOST_OF_PLAIN = 0.9, 1.05


class Clock:
    """Seconds by part; a part inside another stops the other's clock."""

    def __init__(self, cuda: bool):
        self.cuda, self.seconds, self._open = cuda, {}, []

    def wrap(self, owner: object, name: str, part: str) -> None:
        """Let calls of `owner.name` count for `part`."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments, **options):
            self._lap()
            self._open.append(part)
            try:
                return function(*arguments, **options)
            finally:
                self._lap()
                self._open.pop()

        setattr(owner, name, timed)

    def _lap(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:  # the network runs in validation, too
            part = "validation" if "validation" in self._open else self._open[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


def cell_of(network: str, engine: str, data, state: Path, device: str):
    """A cell of two epochs, as `cells.settings` would have it."""
    from dpmedbench import cells, config
    from dpmedbench.training import Trainer

    private = engine != "none"
    study = config.load(
        {
            "study": "step",
            "datasets": {"images": {"loader": LOADER[data.task], "source": "phantom"}},
            "models": {"network": {"network": network}},
            "mechanisms": {
                "mechanism": {"engine": engine}
                | ({"clipping": "abadi", "clipping_style": "flat"} if private else {})
            },
            "training": {"epochs": 2, "batch_size": BATCH[network], "device": device},
            "grids": [
                {"datasets": ["images"], "models": ["network"], "mechanisms": ["mechanism"]}
                | ({"noise_multiplier": [1.0]} if private else {})
            ],
        }
    )
    (cell,) = cells.every(study)
    return Trainer(cells.settings(study, cell), cells.execution(study), data, state)


LOADER = {"segmentation": "duke", "classification": "chest_xray"}


def made_up(network: str, side: int, records: int):
    """Data of one fold: random images, a sixth of them to validate on."""
    import numpy as np

    from dpmedbench import models
    from dpmedbench.training_data import Data

    random = np.random.default_rng(0)
    task = models.task(network)
    classes = 9 if task == "segmentation" else 2

    def part(number: int):
        images = random.integers(0, 256, (number, side, side), dtype=np.uint8)
        shape = (number, side, side) if task == "segmentation" else number
        return images, random.integers(0, classes, shape, dtype=np.uint8)

    scored = {"val": part(records // 6)} | (
        {"test": part(records // 6)} if task == "classification" else {}
    )
    return Data(
        train=part(records), task=task, channels=1, num_classes=classes, digest="", **scored
    )


def parts_of(network: str, engine: str, data, device: str) -> dict[str, float]:
    """Seconds of the second epoch by part."""
    from dpmedbench import checkpoint
    from dpmedbench import training as loop

    with tempfile.TemporaryDirectory() as state:
        cell = cell_of(network, engine, data, Path(state), device)
        clock = Clock(cell.device.type == "cuda")
        save, to_input = checkpoint.Writer.save, loop.to_input
        clock.wrap(checkpoint.Writer, "save", "checkpoint")
        clock.wrap(loop, "to_input", "images to floats")
        clock.wrap(cell.engine.model, "forward", "forward")
        clock.wrap(cell.task, "loss", "loss")
        clock.wrap(cell.engine, "backward", "backward and clipping")
        clock.wrap(cell.engine, "step", "noise" if cell.plan else "update")
        clock.wrap(cell.optimizer, "step", "update")
        if cell.monitor:
            clock.wrap(cell.monitor, "drew", "sampling and contract")
        clock.wrap(cell, "_validate", "validation")
        clock.wrap(cell, "_epoch", "all else")
        epoch = cell._epoch

        def counted(number: int) -> dict:
            clock.seconds.clear()
            return epoch(number)

        cell._epoch = counted
        try:
            cell.run()
        finally:
            checkpoint.Writer.save, loop.to_input = save, to_input
    return {part: clock.seconds[part] for part in (*ARITHMETIC, *OTHER) if part in clock.seconds}


def ordinary(network: str, data, device: str) -> dict[str, float]:
    """Seconds that the second epoch of an ordinary cell trains."""
    with tempfile.TemporaryDirectory() as state:
        cell = cell_of(network, "none", data, Path(state), device)
        cell.run()
    return {"training": cell.history[-1]["seconds"]}


def plain_loop(network: str, workers: int, data, device: str) -> dict[str, float]:
    """Seconds of the second epoch of what anybody would write."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from dpmedbench import models, tasks

    torch.manual_seed(0)
    task = tasks.load(data.task)(data.num_classes)
    device = torch.device(device)
    model = models.build(network, data.channels, data.num_classes).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, targets = (torch.as_tensor(array) for array in data.train)
    loader = DataLoader(
        TensorDataset(images, targets),
        batch_size=BATCH[network],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    for _ in range(2):
        started = time.perf_counter()
        for batch, truth in loader:
            batch = batch.to(device, non_blocking=True).unsqueeze(1).float() / 255
            loss = task.loss(model(batch), truth.to(device, non_blocking=True)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return {"training": seconds}


def rounds(network: str, data, count: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds by part of the median epoch of each engine and of the plain loops."""
    ways = {engine: functools.partial(parts_of, network, engine) for engine in MECHANISMS}
    ways[ORDINARY] = functools.partial(ordinary, network)
    for workers in (0, 2):
        ways[f"plain loop, {workers} workers"] = functools.partial(plain_loop, network, workers)
    found = {name: [] for name in ways}
    for number in range(count):  # forwards and backwards: who goes before leaves its memory behind
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(ways[name](data, device))
    return {
        name: sorted(epochs, key=lambda parts: sum(parts.values()))[count // 2]
        for name, epochs in found.items()
    }


def show(network: str, found: dict[str, dict[str, float]]) -> bool:
    """Print where the time goes; whether all is within bounds."""
    good = True
    for name, parts in found.items():
        if name == ORDINARY:
            continue
        if name not in MECHANISMS:
            ratio = found[ORDINARY]["training"] / parts["training"]
            good &= ratio <= MOST_OF_PLAIN
            print(f"{network}: {ratio:.2f} times the {name}", flush=True)
            continue
        total = sum(parts.values())
        share = sum(parts.get(part, 0.0) for part in ARITHMETIC) / total
        good &= share >= LEAST_ARITHMETIC
        print(f"\n{network}, {name}: {total:.2f} s an epoch, {share:.1%} arithmetic", flush=True)
        for part, seconds in parts.items():
            print(f"  {part:<24}{seconds:>8.3f} s{seconds / total:>8.1%}")
    return good


def main() -> int:
    """Measure, print and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("--side", type=int, default=224, help="rows and columns of an image")
    parser.add_argument("--steps", type=int, help="of an epoch; 3, on CUDA 50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", default="results/benchmarks/step.parquet")
    arguments = parser.parse_args()
    if not machine.TIMED.items() <= os.environ.items():  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | machine.TIMED)

    device = machine.device(arguments.device)
    arguments.steps = arguments.steps or machine.STEPS[device]
    rows, good = [], True
    for network in arguments.networks:
        data = made_up(network, arguments.side, arguments.steps * BATCH[network])
        found = rounds(network, data, arguments.rounds, device)
        good &= show(network, found)
        shared = {"network": network, "side": arguments.side, "batch": BATCH[network]}
        shared |= {"steps": arguments.steps, "rounds": arguments.rounds}
        rows += [
            shared | {"engine": name, "part": part, "seconds": seconds}
            for name, parts in found.items()
            for part, seconds in parts.items()
        ]
    machine.write(rows, arguments.out, device)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
