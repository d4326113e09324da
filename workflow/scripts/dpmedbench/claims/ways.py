"""Cells by what they are."""

from __future__ import annotations

import pandas as pd

from dpmedbench.mechanisms import TWO_PASSES


def ordinary(cells: pd.DataFrame) -> pd.DataFrame:
    """Training without privacy."""
    return cells[cells["engine"] == "none"]


def opacus(cells: pd.DataFrame) -> pd.DataFrame:
    """Opacus by per-sample gradients, clipped as published (Abadi et al. 2016)."""
    found = cells[(cells["engine"] == "opacus") & (cells["mode"] != "ghost")]
    return dp_sgd(found)


def book_keeping(cells: pd.DataFrame) -> pd.DataFrame:
    """Book-Keeping by any engine."""
    engine = cells["engine"].isin(("bookkeeping", "fastdp"))
    return _dense(cells[engine & ~cells["mode"].isin(TWO_PASSES)])


def rivals(cells: pd.DataFrame) -> pd.DataFrame:
    """The algorithms that Book-Keeping was published against: Opacus, FastGradClip, GhostClip."""
    return _dense(cells[(cells["engine"] == "opacus") | cells["mode"].isin(TWO_PASSES)])


def automatic(cells: pd.DataFrame) -> pd.DataFrame:
    """Opacus with automatic clipping."""
    return _dense(cells[(cells["engine"] == "opacus") & (cells["clipping"] == "automatic")])


def sparsified(cells: pd.DataFrame) -> pd.DataFrame:
    """Random sparsification."""
    return _steady(cells[cells["sparsification"].notna()])


def local(cells: pd.DataFrame) -> pd.DataFrame:
    """Laplace noise on every pixel of the images."""
    return cells[(cells["engine"] == "local") & (cells["mode"] == "laplace")]


def dp_sgd(cells: pd.DataFrame) -> pd.DataFrame:
    """DP-SGD by any engine, clipped as published (Abadi et al. 2016)."""
    return _dense(cells[cells["clipping"] == "abadi"])


def with_noise(cells: pd.DataFrame) -> pd.DataFrame:
    """Those whose noise was given, of which epsilon follows, and not the other way round."""
    return cells[cells["target_epsilon"].isna()]


def _dense(cells: pd.DataFrame) -> pd.DataFrame:
    return _steady(cells[cells["sparsification"].isna()])


def _steady(cells: pd.DataFrame) -> pd.DataFrame:
    """Those whose noise stays: a schedule's is soon another one than the setting is named by."""
    return cells[cells["noise_schedule"].isna() | (cells["noise_schedule"] == "constant")]
