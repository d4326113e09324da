"""Time and memory of a step of every engine, relative to ordinary training, in one run.

    python benchmarks/engines.py [--networks unet nested_unet resnet18] [--side 224]
        [--only 'mix_opt abadi' hooks] [--steps 3] [--rounds 2] [--device auto]
        [--budget-gb 8] [--limit 300] [--check 1.5 1.3] [--out results/benchmarks/engines.parquet]

U-Net and Nested U-Net with batches of 10, ResNet-18 with batches of 32. Each engine runs in a
process of its own, the rounds interleaved, so that what disturbs the machine disturbs all. A step
is forward, backward, clipping, noise and update. Memory is what a step takes beyond what the
process held before it, measured in a process of its own, whose allocator gives back what is freed
(else it tells the history of the heap). The largest batch within the budget is read off a straight
line through two batch sizes. `rivals` are what anybody can write without an engine. With `--check`
nothing is written; exit code 1 where Book-Keeping takes more than these times the time or the
memory. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "scripts"
sys.path[:0] = [str(LIBRARY)]
RIVALS = ("loop", "vmap")

BATCH = {"unet": 10, "nested_unet": 10, "resnet18": 32}
CASES = [  # (engine, mode, clipping, clipping_style)
    ("none", "autograd", "none", "none"),
    ("bookkeeping", "mix_opt", "abadi", "flat"),
    ("bookkeeping", "mix_opt", "automatic", "flat"),
    ("bookkeeping", "mix_opt", "automatic", "per_layer"),
    ("bookkeeping", "mix_flops", "abadi", "flat"),
    ("bookkeeping", "mix_time", "abadi", "flat"),
    ("bookkeeping", "mix_ghost", "abadi", "flat"),
    ("bookkeeping", "fast_gradient_clip", "abadi", "flat"),
    ("bookkeeping", "base", "abadi", "flat"),
    ("bookkeeping", "ghost_clip", "abadi", "flat"),
    ("opacus", "hooks", "abadi", "flat"),
    ("opacus", "hooks", "automatic", "flat"),
    ("opacus", "hooks", "abadi", "per_layer"),
    ("opacus", "functorch", "abadi", "flat"),
    ("opacus", "ew", "abadi", "flat"),
    ("opacus", "ghost", "abadi", "flat"),
    ("fastdp", "mix_opt", "automatic", "flat"),
    ("fastdp", "mix_ghost", "automatic", "flat"),
    ("fastdp", "ghost", "automatic", "flat"),
    *(("rival", name, "abadi", "flat") for name in RIVALS),
]
ENVIRONMENT = {
    "seconds": machine.TIMED,
    "bytes": {"MALLOC_MMAP_THRESHOLD_": "65536"},  # freed memory is given back at once
}


class Memory:
    """Peak bytes since the last `reset`: of the process, or of the tensors on the GPU."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        self.reset()

    def reset(self) -> None:
        """Start over."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = self._status("VmRSS")

    def taken(self) -> int:
        """Peak since, beyond what was held then."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated() - self.before
        return self._status("VmHWM") - self.before

    @staticmethod
    def _status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def trainer(network: str, case: tuple, batch: int, device):
    """A step on random images: a function of the batch size and the side of the images."""
    import torch

    from dpmedbench import models
    from dpmedbench.config import Mechanism
    from dpmedbench.dpsgd.training import PrivateTraining, build
    from dpmedbench.losses import segmentation_loss
    from dpmedbench.mechanisms.none import OrdinaryTraining
    from dpmedbench.precision import keep_float32
    from dpmedbench.privacy.contract import ContractMonitor
    from dpmedbench.privacy.plan import PrivacyPlan, thresholds
    from dpmedbench.privacy.randomness import Seeded

    engine, mode, clipping, style = case
    keep_float32()
    torch.manual_seed(0)
    segments = models.task(network) == "segmentation"
    channels, classes = (1, 9) if segments else (3, 2)
    model = models.build(network, channels, classes).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss = segmentation_loss if segments else torch.nn.CrossEntropyLoss(reduction="none")
    if engine == "none":
        training = OrdinaryTraining(model, optimizer)
    else:
        tensors = sum(p.requires_grad for p in model.parameters())
        plan = PrivacyPlan(
            unit="image",
            sampling="fixed_size",
            neighbouring="replace_one",
            num_records=100 * batch,
            batch_size=batch,
            epochs=1000,
            noise_multiplier=1.0,
            thresholds=thresholds(1.0, style, "scaled", tensors),
            delta=1e-5,
            accountant="rdp",
        )
        monitor = ContractMonitor(plan, model, plan.num_records, every=10**9)
        sampler = plan.sampler(Seeded(0))
        noise = Seeded(0, device)
        if engine == "rival":
            import rivals

            rival = getattr(rivals, mode.title())(model, loss, plan.thresholds)
            training = PrivateTraining(rival, optimizer, plan, monitor, noise, clipping)
        else:
            mechanism = Mechanism(
                engine=engine, mode=mode, clipping=clipping, clipping_style=style
            ).model_dump()
            training = build(mechanism, model, optimizer, plan, monitor, noise, None)

    def step(size: int, side: int) -> None:
        images = torch.rand(size, channels, side, side, device=device)
        shape = (size, side, side) if segments else (size,)
        targets = torch.zeros(shape, device=device).long()
        if engine != "none":
            training.monitor.drew(sampler, torch.arange(batch))
        if engine == "rival":
            training.backward((images, targets))
        else:
            training.backward(loss(training.model(images), targets))
        training.step()

    return step


def measure(what: str, network: str, case: tuple, arguments) -> dict:
    """Seconds of each step at full batch, or bytes of a step at two batch sizes."""
    import torch

    from dpmedbench.cost import StepTimer
    from dpmedbench.errors import UserError

    device = torch.device(arguments.device)
    full, side = BATCH[network], arguments.side
    try:
        step = trainer(network, case, full, device)
        step(full // 4, side)  # some engines check their first batch, which takes more
        if what == "bytes":
            found = []
            for size in (full // 2, full):
                step(size, side)  # what is tried once, and allocated once
                memory = Memory(device)
                step(size, side)
                found.append(memory.taken())
            return {"bytes_small": found[0], "bytes": found[1]}
        timer = StepTimer(device)
        for _ in range(1 + arguments.steps):  # the first one allocates at this size
            timer.wait()
            timer.start()
            step(full, side)
            timer.stop()
        timer.end_epoch()
        return {"seconds": timer.seconds[1:]}
    except (UserError, RuntimeError) as error:  # RuntimeError: out of memory
        return {"reason": str(error).splitlines()[0]}


def run(what: str, network: str, case: tuple, arguments) -> dict:
    """One measurement of one case in a process of its own."""
    from dpmedbench import mechanisms

    if case[0] != "rival" and (why := mechanisms.missing(case[0])):
        return {"reason": why}
    command = [sys.executable, __file__, "--one", json.dumps([what, network, case])]
    command += ["--side", str(arguments.side), "--device", arguments.device]
    command += ["--steps", str(arguments.steps)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | ENVIRONMENT[what],
            capture_output=True,
            timeout=arguments.limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"not done in {arguments.limit:g} s"}
    if done.returncode:
        last = done.stderr.decode().strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"reason": "out of memory" if done.returncode == -9 else last[0]}
    return json.loads(done.stdout.splitlines()[-1])


def rows(network: str, found: dict[tuple, list[dict]], arguments) -> list[dict]:
    """A row for each case: medians over all rounds, relative to ordinary training."""
    from statistics import median

    def middle(rounds: list[dict], key: str) -> float:
        return median(value for one in rounds for value in one.get(key, []))

    plain = found[CASES[0]]
    table = []
    for case, rounds in found.items():
        row = dict(zip(("engine", "mode", "clipping", "clipping_style"), case, strict=True))
        row |= {"network": network, "side": arguments.side, "batch": BATCH[network]}
        reasons = [one["reason"] for one in rounds if "reason" in one]
        row |= {"reason": "".join(reasons[:1])}
        if not reasons:
            size, small = (rounds[-1][key] for key in ("bytes", "bytes_small"))
            slope = (size - small) / (BATCH[network] - BATCH[network] // 2)
            row |= {"seconds": middle(rounds, "seconds"), "bytes": size}
            row["time_ratio"] = row["seconds"] / middle(plain, "seconds")
            row["memory_ratio"] = size / plain[-1]["bytes"]
            row["largest_batch"] = None  # where the libraries' own memory differs more
            if slope > 0:
                more = (arguments.budget_gb * 1e9 - size) / slope
                row["largest_batch"] = int(BATCH[network] + more)
        table.append(row)
    return table


def kept(table: list[dict], most_time: float, most_memory: float) -> bool:
    """Whether Book-Keeping's ratios are within bounds; says which are not."""
    good = True
    for row in table:
        if row["engine"] == "bookkeeping" and (
            row["reason"] or row["time_ratio"] > most_time or row["memory_ratio"] > most_memory
        ):
            print(f"{row['mode']}: OVER {most_time:g} times the time or {most_memory:g} the memory")
            good = False
    return good


def show(table: list[dict]) -> None:
    """Print the rows of one network."""
    first = table[0]
    print(f"\n{first['network']}, {first['side']} px, batch {first['batch']}")
    print(f"{'engine':<42}{'s/step':>8}{'time':>7}{'MB':>8}{'memory':>8}{'largest':>9}")
    for row in table:
        name = " ".join(row[key] for key in ("engine", "mode", "clipping", "clipping_style"))
        if row["reason"]:
            print(f"{name:<42}  {row['reason']}")
            continue
        print(
            f"{name:<42}{row['seconds']:>8.2f}{row['time_ratio']:>7.2f}{row['bytes'] / 1e6:>8.0f}"
            f"{row['memory_ratio']:>8.2f}{row['largest_batch'] or '-':>9}",
            flush=True,
        )


def main() -> int:
    """Measure, print and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=BATCH, default=list(BATCH))
    parser.add_argument("--only", nargs="+", help="parts of names, e.g. 'mix_opt abadi' hooks")
    parser.add_argument("--side", type=int, default=224, help="rows and columns of an image")
    parser.add_argument("--steps", type=int, help="timed steps of a round; 3, on CUDA 50")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds of one case")
    parser.add_argument("--budget-gb", type=float, default=8, help="for the largest batch")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", default="results/benchmarks/engines.parquet")
    parser.add_argument(
        "--check", type=float, nargs=2, metavar=("TIME", "MEMORY"), help="most of Book-Keeping"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, network, case = json.loads(arguments.one)
        print(json.dumps(measure(what, network, case, arguments)))
        return 0

    arguments.device = machine.device(arguments.device)
    arguments.steps = arguments.steps or machine.STEPS[arguments.device]
    wanted = [
        case
        for case in CASES
        if case[0] == "none" or any(part in " ".join(case) for part in arguments.only or [""])
    ]
    table, good = [], True
    for network in arguments.networks:
        found: dict[tuple, list[dict]] = {case: [] for case in wanted}
        for what in ["seconds"] * arguments.rounds + ["bytes"]:
            for case, rounds in found.items():
                if not rounds or "reason" not in rounds[-1]:
                    rounds.append(run(what, network, case, arguments))
        table += (part := rows(network, found, arguments))
        show(part)
        good &= arguments.check is None or kept(part, *arguments.check)
    if not arguments.check:
        machine.write(table, arguments.out, arguments.device)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
