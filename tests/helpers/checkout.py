"""A copy of the workflow in a folder of its own, for tests that run it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TINY = {
    "study": "tiny",
    "title": "A tiny study",
    "datasets": {
        "phantom_duke": {
            "loader": "duke",
            "image_size": [32, 32],
            "split": {"method": "ratio", "ratios": [0.5, 0.25, 0.25]},
            "phantom": {"patients": 4, "scans": 2, "image_size": [64, 64]},
        }
    },
    "models": {"unet": {"features": [4, 8], "num_groups": 2}},
    "mechanisms": {
        "non_private": {"engine": "none"},
        "opacus_flat": {"engine": "opacus", "clipping": "abadi", "clipping_style": "flat"},
    },
    "privacy": {"delta": 0.01},
    "training": {"epochs": 3, "batch_size": 2, "device": "cpu"},
    "grids": [
        {
            "datasets": ["phantom_duke"],
            "models": ["unet"],
            "mechanisms": ["non_private", "opacus_flat"],
            "noise_multiplier": [1.0],
        }
    ],
}
CHEST = {
    "datasets": {
        "phantom_chest": {
            "loader": "chest_xray",
            "image_size": [32, 32],
            "class_weights": [1.5, 0.75],
            "split": {"method": "official", "ratios": [0.5, 0.25, 0.25]},
            "phantom": {"patients": 8, "scans": 2, "image_size": [64, 64]},
        }
    },
    "models": {"resnet18": {"features": [4, 8], "num_groups": 2}},
    "grids": [
        {
            "datasets": ["phantom_chest"],
            "models": ["resnet18"],
            "mechanisms": ["non_private", "opacus_flat"],
            "noise_multiplier": [1.0],
        }
    ],
}


class Checkout:
    """A copy of the workflow with a study of its own."""

    def __init__(self, folder, study=TINY):
        self.folder = folder
        for name in ("workflow", "config", "envs"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "profiles").symlink_to("workflow/profiles")
        self.write(study)

    def write(self, study):
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study))

    def start(self, *arguments, **environment):
        command = [sys.executable, "-m", "snakemake", *arguments]
        options = ["--cores", "2", "--resources", "gpu=1", "--configfile", "study.yaml"]
        return subprocess.Popen(
            [*command, *options],
            cwd=self.folder,
            env=os.environ | {"PATH": "/usr/bin:/bin"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments, **environment):
        """Run snakemake; its exit code and what it printed."""
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said

    def would_run(self):
        """Jobs of a dry run, by rule."""
        code, said = self.run("--dry-run")
        assert code == 0, said
        if "Nothing to be done" in said:
            return {}
        stats = said.rpartition("Job stats:")[2]
        found = dict(re.findall(r"^(\w+)\s+(\d+)$", stats, re.MULTILINE))
        return {rule: int(n) for rule, n in found.items() if rule not in ("all", "total")}

    def append(self, path, text):
        file = self.folder / "workflow" / "scripts" / path
        file.write_text(file.read_text() + text)
        return file


def after_a_run(folder, study=TINY):
    """A checkout whose study ran once."""
    there = Checkout(folder, study)
    code, said = there.run()
    assert code == 0, said
    return there
