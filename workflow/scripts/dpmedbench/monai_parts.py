"""The parts of MONAI that are used here, imported without what MONAI imports just in case.

Importing any of it imports all of it, and with it plotting, statistics and data frames where they
are installed: 2.3 of its 2.8 CPU-seconds, in every training job. They are optional to MONAI.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = [
    "DiceLoss",
    "Down",
    "Norm",
    "ResNetBlock",
    "TwoConv",
    "UpCat",
    "calibration_binning",
    "get_norm_layer",
]


@contextlib.contextmanager
def _withheld(*packages: str) -> Iterator[None]:
    """Let packages that are not loaded yet look as if they were not installed."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _withheld("PIL", "matplotlib", "pandas", "pydicom", "requests", "scipy", "sklearn"):
    from monai.losses import DiceLoss
    from monai.metrics.calibration import calibration_binning
    from monai.networks.layers import Norm, get_norm_layer
    from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
    from monai.networks.nets.resnet import ResNetBlock
