"""Epsilon as the tables of the report write it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dpmedbench import summary
from dpmedbench.figures import wording
from dpmedbench.results import CONSTANT, SETTING

if TYPE_CHECKING:
    import pandas as pd


def with_epsilon(table: pd.DataFrame, privacy: pd.DataFrame) -> pd.DataFrame:
    """`table`, rows of the summary, with what each spends on one image as text: `epsilon_text`.

    Noise on images protects one by the epsilon of all its pixels, behind which that of one of them
    stands. The constant predictor has none.
    """
    images = privacy.groupby(SETTING)["epsilon_per_image"].mean().rename("image").reset_index()
    joined = table[[*SETTING, "engine", "beta", "epsilon"]].merge(images, "left", SETTING)
    return table.assign(epsilon_text=[_text(row) for row in joined.itertuples()])


def _text(row) -> str:
    if row.mechanism == CONSTANT:
        return "–"
    if row.engine != "local":
        return summary.text(row.epsilon)
    if math.isinf(row.image):
        return "∞"
    return f"{summary.text(row.image)} an image ({wording.number(1 / row.beta)} a pixel)"
