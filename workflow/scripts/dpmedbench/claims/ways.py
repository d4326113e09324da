"""Cells by what they are.

As published: per layer means that every tensor has the whole threshold (`layer_thresholds: same`).
"""

from __future__ import annotations

import pandas as pd

from dpmedbench.mechanisms import TWO_PASSES

# what computes Book-Keeping, in words
ENGINES = {"bookkeeping": ("engine bookkeeping",), "fastdp": ("its authors' fastDP",)}
HYBRID = ("mix_opt", "mix_ghost")
MODES = (*HYBRID, "base", "ghost")  # of Bu et al. 2023; fastDP calls the base ghost


def ordinary(cells: pd.DataFrame) -> pd.DataFrame:
    """Training without privacy."""
    return cells[cells["engine"] == "none"]


def opacus(cells: pd.DataFrame) -> pd.DataFrame:
    """Opacus by per-sample gradients, clipped as published (Abadi et al. 2016)."""
    return dp_sgd(_per_sample(cells))


def opacus_per_layer(cells: pd.DataFrame) -> pd.DataFrame:
    """The same per layer, as Shandilya ran it."""
    return _whole_thresholds(opacus(cells))


def opacus_flat(cells: pd.DataFrame) -> pd.DataFrame:
    """Opacus by per-sample gradients, flat, with any clipping function."""
    return _flat(_per_sample(cells))


def book_keeping(cells: pd.DataFrame) -> pd.DataFrame:
    """Book-Keeping as published (Bu et al. 2023), by any engine: flat, in a mode of theirs."""
    return _flat(cells[cells["engine"].isin([*ENGINES]) & cells["mode"].isin(MODES)])


def book_keeping_automatic(cells: pd.DataFrame) -> pd.DataFrame:
    """The same in a hybrid mode with automatic clipping, as Shandilya ran it."""
    found = book_keeping(cells)
    return found[found["mode"].isin(HYBRID) & (found["clipping"] == "automatic")]


def rivals(cells: pd.DataFrame) -> pd.DataFrame:
    """The algorithms that Book-Keeping was published against: Opacus, FastGradClip, GhostClip."""
    return _flat(cells[(cells["engine"] == "opacus") | cells["mode"].isin(TWO_PASSES)])


def ghost_clip(cells: pd.DataFrame) -> pd.DataFrame:
    """GhostClip."""
    return _flat(cells[cells["mode"] == "ghost_clip"])


def automatic(cells: pd.DataFrame) -> pd.DataFrame:
    """Opacus with automatic clipping per layer, as in the comparison of clipping techniques."""
    opacus = cells["engine"] == "opacus"
    return _whole_thresholds(_dense(cells[opacus & (cells["clipping"] == "automatic")]))


def sparsified(cells: pd.DataFrame) -> pd.DataFrame:
    """Random sparsification, clipped per layer, as in the same comparison."""
    return _whole_thresholds(_steady(cells[cells["sparsification"].notna()]))


def laplace(cells: pd.DataFrame) -> pd.DataFrame:
    """Laplace noise on every pixel of the images."""
    return cells[(cells["engine"] == "local") & (cells["mode"] == "laplace")]


def scalar(cells: pd.DataFrame) -> pd.DataFrame:
    """One number for all pixels of an image."""
    return cells[(cells["engine"] == "local") & (cells["mode"] == "scalar_per_image")]


def dp_sgd(cells: pd.DataFrame) -> pd.DataFrame:
    """DP-SGD by any engine, clipped as published (Abadi et al. 2016)."""
    return _dense(cells[cells["clipping"] == "abadi"])


def with_noise(cells: pd.DataFrame) -> pd.DataFrame:
    """Those whose noise was given, of which epsilon follows, and not the other way round."""
    return cells[cells["target_epsilon"].isna()]


def _per_sample(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[(cells["engine"] == "opacus") & (cells["mode"] != "ghost")]


def _flat(cells: pd.DataFrame) -> pd.DataFrame:
    return _dense(cells[cells["clipping_style"] == "flat"])


def _whole_thresholds(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["layer_thresholds"] == "same"]


def _dense(cells: pd.DataFrame) -> pd.DataFrame:
    return _steady(cells[cells["sparsification"].isna()])


def _steady(cells: pd.DataFrame) -> pd.DataFrame:
    """Those whose noise stays: a schedule's is soon another one than the setting is named by."""
    return cells[cells["noise_schedule"].isna() | (cells["noise_schedule"] == "constant")]
