"""Epsilon as the tables of the report write it."""

from __future__ import annotations

from collections.abc import Mapping

from dpmedbench import summary
from dpmedbench.privacy import local


def epsilon(row: Mapping[str, object]) -> str:
    """What a row of the summary spends; for noise on images, on one pixel of one channel."""
    if row["engine"] != "local":
        return summary.text(row["epsilon"])
    found = local.promise(row["mode"], row["beta"], 1)["epsilon_per_pixel"]
    return "∞" if found is None else f"{summary.text(found)} a pixel"
