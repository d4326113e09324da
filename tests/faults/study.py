"""A small study to disturb: one cell that is finished, and one whose training is interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml
from checkout import TINY, Checkout

EPOCHS = 40
STUDY = TINY | {"training": TINY["training"] | {"epochs": EPOCHS, "checkpoint_seconds": 0}}
CELL = "phantom_duke/unet/{}/fold0/seed0"
FINISHED, DISTURBED = CELL.format("non_private/none"), CELL.format("opacus_flat/sigma1")
OUTPUTS = ("model.safetensors", "history.parquet", "privacy.json", "cost.json", "manifest.json")
PATIENCE = 300  # seconds that anything may take


class Disturbed:
    """A checkout whose first cell is trained; the second is there to be disturbed.

    Args:
        folder: where it lies; a copy of `like`, or made anew with the first cell trained.
    """

    def __init__(self, folder: Path, like: Disturbed | None = None):
        self.folder = folder
        if like:
            shutil.copytree(like.folder, folder, symlinks=True)
        else:
            Checkout(folder, STUDY)
            self.finish(_manifest(FINISHED))
        self.data = folder / "results" / "tiny" / "data" / "phantom_duke.h5"
        self.results = folder / "results" / "tiny" / "cells" / DISTURBED
        self.state = folder / "state" / "tiny" / DISTURBED
        self.log = folder / "logs" / "tiny" / "train" / f"{DISTURBED}.log"
        self.finished = (folder / _manifest(FINISHED)).read_text()

    def start(self, *arguments: str, **environment: str) -> Run:
        """The command that a user gives, for the second cell if no other target is named."""
        return Run(self.folder, arguments or (_manifest(DISTURBED),), environment)

    def write(self, study: dict) -> None:
        """Configure another study."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study))

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The command to its end: exit code and what was said."""
        return self.start(*arguments, **environment).end()

    def finish(self, *arguments: str, **environment: str) -> str:
        """The command, which must succeed; what it said."""
        code, said = self.run(*arguments, **environment)
        assert code == 0, said
        return said

    def training(self, run: Run) -> int:
        """Wait until the second cell is between two checkpoints; its process."""
        run.until(lambda: self.reached() >= 7)
        return int(re.search(r"process (\d+)", (self.state / "lock").read_text())[1])

    def reached(self) -> int:
        """The last epoch in the log."""
        log = self.log.read_text() if self.log.exists() else ""
        return max((int(epoch) for epoch in re.findall(r": (\d+)/\d+,", log)), default=0)

    def again(self, reached: int | None = None) -> str:
        """The same command again; how many epochs were trained twice.

        Args:
            reached: the last epoch before, in the log if None.
        """
        reached = self.reached() if reached is None else reached
        said = self.finish()
        found = re.search(r"going on after epoch (\d+) from", said)
        repeated = reached - (int(found[1]) if found else 0)
        return f"{repeated} of {EPOCHS} epochs" if repeated else "nothing"

    def check(self, undisturbed: Disturbed) -> None:
        """The second cell must be as if undisturbed, the first untouched, nothing left behind."""
        for name in ("model.safetensors", "privacy.json"):
            same = (self.results / name).read_bytes() == (undisturbed.results / name).read_bytes()
            assert same, f"{name} is not that of the undisturbed run"
        pd.testing.assert_frame_equal(self.history(), undisturbed.history(), check_exact=True)
        self.check_rest()

    def check_rest(self) -> None:
        """The first cell must be untouched, nothing half written be left."""
        assert (self.folder / _manifest(FINISHED)).read_text() == self.finished, "trained again"
        for folder in ("results", "state"):
            left = [path.name for path in (self.folder / folder).rglob("*.tmp")]
            assert not left, f"left half written: {left}"

    def history(self) -> pd.DataFrame:
        """What was recorded of each epoch, but for its time."""
        history = pd.read_parquet(self.results / "history.parquet")
        return history[[name for name in history if "seconds" not in name]]

    def privacy(self) -> dict:
        """What was promised and kept."""
        return json.loads((self.results / "privacy.json").read_text())


class Run:
    """Snakemake in a process group of its own."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]):
        self.said = folder / "said.txt"
        with open(self.said, "w", encoding="utf-8") as said:
            options = ["--cores", "1", "--configfile", "study.yaml"]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments, *options],
                cwd=folder,
                env=os.environ | {"PATH": "/usr/bin:/bin"} | environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, condition) -> None:
        """Wait for a condition while it runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended too early:\n{self.said.read_text()}"
            assert time.monotonic() < deadline, f"it took too long:\n{self.said.read_text()}"
            time.sleep(0.002)

    def kill_all(self, number: int = signal.SIGKILL) -> str:
        """Send a signal to Snakemake and all its jobs, and wait; what was said."""
        os.killpg(self.process.pid, number)
        return self.end()[1]

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code and what was said."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return code, self.said.read_text()


def _manifest(cell: str) -> str:
    return f"results/tiny/cells/{cell}/manifest.json"
