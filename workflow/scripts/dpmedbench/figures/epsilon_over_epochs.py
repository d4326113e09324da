"""Privacy spent over epochs

epsilon spent after each epoch of training on {dataset}, at delta = {delta} (accountant:
{accountant}), for every noise level ({noise}). Unit of privacy: one {unit}. At equal noise,
sampling rate and number of steps every mechanism spends the same: lines that coincide are drawn as
alternating dashes of their colours. Training that is not private has no finite epsilon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmedbench.figures import live, wording
from dpmedbench.figures.curves import curves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = 50
NEEDS = ("history", "privacy")
PUBLISHED = {"bookkeeping": "Figures 11 and 12", "clipping": "Privacy spent over iterations"}


def draw(history: pd.DataFrame, privacy: pd.DataFrame) -> Figure:
    """epsilon over epochs, on a logarithmic axis."""
    private = privacy[privacy["privacy"] != "none"]
    accountants = ", ".join(str(name).upper() for name in private["accountant"].dropna().unique())
    deltas = ", ".join(wording.power(delta) for delta in private["delta"].dropna().unique())
    unbounded = history.loc[history["privacy"] == "none", "mechanism"].nunique() > 0
    local = history["privacy"].str.startswith("beta").any()
    return curves(
        history,
        "epsilon",
        f"privacy spent, ε (at δ = {deltas})" if deltas else "privacy spent, ε",
        empty="no finite epsilon: non-private",
        shared_lines=True,
        log=True,
        notes=[
            f"{accountants} accountant" if accountants else "",
            "non-private training has no finite ε and is left out" if unbounded else "",
            "noise on the images (β) is spent before training and left out" if local else "",
            "lines that coincide alternate in colour" if len(set(private["mechanism"])) > 1 else "",
        ],
    )[0]


def numbers(history: pd.DataFrame) -> str:
    """Epsilon after the last epoch."""
    return live.last_epoch(history, "epsilon", ".3g", what="Epsilon")
