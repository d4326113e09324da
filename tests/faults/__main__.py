"""Disturb a small study in every way that it should survive, and print a table of what was lost.

    python tests/faults [words of a fault ...]

After each fault the same command is given again. Its end must be that of an undisturbed run, bit
for bit, with nothing half written taken for whole and no finished cell trained again. File systems
that are full or read-only are real ones, in a mount namespace of their own (root, or unprivileged
user namespaces; where neither is allowed those faults are left out and said so).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "workflow" / "scripts")]
MOUNTS = "DPMEDBENCH_TEST_MOUNTS"  # set within the mount namespace


def main() -> None:
    """Run the faults that have all the words asked for in their names, some at a time."""
    from faults import FAULTS
    from study import Disturbed

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    wanted = [fault for fault in FAULTS if all(word in fault.name for word in sys.argv[1:])]
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    started = time.monotonic()
    template = Disturbed(folder / "template")
    undisturbed = Disturbed(folder / "undisturbed", template)
    undisturbed.finish()

    def outcome(fault) -> tuple[str, str]:
        """Whether it was survived, and what was lost."""
        if fault.mounts and MOUNTS not in os.environ:
            return "-", "not tried: file systems may not be mounted here"
        study = Disturbed(folder / re.sub(r"\W+", "-", fault.name), template)
        try:
            return "yes", fault.disturb(study, undisturbed)
        except Exception:
            return "NO", traceback.format_exc()

    print(f"{'fault':<58} {'survived':<9} lost", flush=True)
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for fault, (survived, lost) in zip(wanted, pool.map(outcome, wanted), strict=True):
            print(f"{fault.name:<58} {survived:<9} {lost}", flush=True)
            found.append(survived)
    print(f"{found.count('yes')} of {len(found)} survived, {time.monotonic() - started:.0f} s")
    if "NO" in found:
        sys.exit(f"what is left of it lies in {folder}")
    shutil.rmtree(folder)


def in_mount_namespace() -> None:
    """Start again where mounts are seen by this process alone and end with it."""
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        allowed = subprocess.run(
            ["unshare", *options, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
        )
        if allowed.returncode == 0:
            command = ["unshare", *options, sys.executable, *sys.orig_argv[1:]]
            os.execvpe("unshare", command, os.environ | {MOUNTS: "1"})


if __name__ == "__main__":
    if MOUNTS not in os.environ and shutil.which("unshare"):
        in_mount_namespace()
    main()
