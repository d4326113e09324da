"""A test double of the command `conda`: what Snakemake asks of it, on a channel of this disk.

It solves and links with rattler. The channel's `python` is empty: the interpreter is the one that
runs this file, and must be of the version asked for. So it shows that the workflow's environments
are created, activated and used, and not that conda-forge has what they ask for.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import yaml
from rattler import MatchSpec, Subdir, VirtualPackage, install, solve
from rattler.exceptions import SolverError
from rattler.index import index_fs
from rattler_build import assemble_package


def write(folder: Path, pins: tuple[str, ...]) -> dict[str, str]:
    """Make `folder` a channel of the python and pip pinned and a conda prefix with the command.

    Returns the environment variables with which the command is found.
    """
    versions = dict(pin.split("==") for pin in pins)
    channel, site = folder / "channel", folder / "wheel" / "site-packages"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*pip, f"pip=={versions['pip']}"], check=True)
    with zipfile.ZipFile(next(folder.glob("pip-*.whl"))) as wheel:
        wheel.extractall(site)
    platform, noarch = str(Subdir.current()), "noarch"
    for name in (platform, noarch):
        (channel / name).mkdir(parents=True)
    assemble_package("python", versions["python"], platform, "0", channel / platform)
    assemble_package(
        "pip",
        versions["pip"],
        noarch,
        "0",
        channel / noarch,
        files_dir=site.parent,
        depends=["python"],
        noarch="python",
    )
    asyncio.run(index_fs(channel))
    commands = folder / "bin"
    commands.mkdir()
    conda = commands / "conda"
    conda.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    conda.chmod(0o755)
    activate = commands / "activate"
    activate.write_text('export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n')
    return {"CONDA_DOUBLE": str(folder), "PATH": f"{commands}:/usr/bin:/bin"}


def create(file: Path, prefix: Path, channel: Path) -> None:
    """Create the environment of `file` at `prefix`."""
    given = yaml.safe_load(file.read_text())
    *conda, wheels = given["dependencies"]
    records = asyncio.run(
        solve(
            [channel.as_uri()],
            [MatchSpec(spec, strict=True) for spec in conda],
            platforms=[Subdir.current(), Subdir("noarch")],
            virtual_packages=VirtualPackage.detect(),
        )
    )
    cache = channel.parent / "packages"
    asyncio.run(install(records, prefix, cache_dir=cache, show_progress=False))
    python = next(record for record in records if record.name.normalized == "python")
    here = ".".join(map(str, sys.version_info[:2]))
    if not str(python.version).startswith(f"{here}."):
        raise SystemExit(f"the interpreter is {here}, the environment asks for {python.version}")
    venv.create(prefix, symlinks=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("\n".join(wheels["pip"]))
        pins.flush()
        pip = [prefix / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, "-r", pins.name], check=True)


def main(arguments: list[str]) -> None:
    """What the command does."""
    here = Path(os.environ["CONDA_DOUBLE"])
    match arguments:
        case ["--version"]:
            print("conda 24.7.1")
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": str(here), "platform": str(Subdir.current())}))
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["env", "create", *_, "--file", file, "--prefix", prefix]:
            try:
                create(Path(file), Path(prefix), here / "channel")
            except (SolverError, subprocess.CalledProcessError) as error:
                raise SystemExit(str(error)) from None
        case ["clean", *_]:
            pass  # the packages lie in the double's own folder
        case _:
            raise SystemExit(f"the test double of conda does not know {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
