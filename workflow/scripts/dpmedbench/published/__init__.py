"""Numbers of the published studies, as printed there.

A file `<study>.csv` each, its comment saying of what: source (where it stands), dataset, model,
mechanism (as named there), privacy and metric (as in our tables) and value.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent


def table(study: str) -> pd.DataFrame:
    """The published numbers of a study: columns study, source, dataset, model, mechanism, privacy,
    metric, value."""
    frame = pd.read_csv(FOLDER / f"{study}.csv", comment="#", keep_default_na=False)
    frame.insert(0, "study", study)
    return frame.astype({"value": float})
