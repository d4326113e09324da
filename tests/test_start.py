"""What a training job imports before its first step."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
HEAVY = ("PIL", "matplotlib", "pandas", "pydicom", "requests", "scipy", "sklearn")


def _run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_networks_and_losses_come_without_plots_and_statistics():
    """They are most of what MONAI imports; importing them took 2 s of CPU in every job."""
    code = (
        "import sys\n"
        "from dpmedbench import losses, models, training, training_data\n"
        "from dpmedbench.models import nested_unet, resnet18, unet\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    assert _run(code) == "[]"


def test_what_was_withheld_from_monai_can_be_imported_later():
    code = (
        "from dpmedbench import monai_parts\n"
        "import matplotlib, pandas, scipy.ndimage, sklearn.metrics\n"
        "print(scipy.ndimage.distance_transform_edt([0, 1, 1]).max())\n"
    )
    assert _run(code) == "2.0"
