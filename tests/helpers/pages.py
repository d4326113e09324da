"""Pages of the documentation, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"(?:^`([\w./]+)`[^\n]*:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files(page: Path) -> dict[str, str]:
    """The files that a page gives, by name."""
    return {path: text for path, _, text in BLOCK.findall(page.read_text("utf-8")) if path}


def follow(page: Path, folder: Path) -> str:
    """Write the files of a page, apply its differences, run its commands, all in their order.

    Returns:
        What the commands were and printed.
    """
    said = []
    for path, language, text in BLOCK.findall(page.read_text("utf-8")):
        if path:
            (folder / path).write_text(text, "utf-8")
        elif language == "diff":
            run(["git", "apply", "-"], folder, text)
        else:
            assert language == "sh", f"{page.name}: a block of {language} without a file's name"
            said.append(run(["bash", "-euxo", "pipefail", "-c", text], folder))
    return "".join(said)


def run(command: list[str | Path], folder: Path, given: str | None = None) -> str:
    """What a command printed; it must succeed."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": tools, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
