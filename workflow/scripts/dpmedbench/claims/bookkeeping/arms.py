"""The arms of the study as it ran them, and pairs of their cells."""

from __future__ import annotations

import pandas as pd

from dpmedbench.claims import base, ways
from dpmedbench.claims.base import CONTEXT

OPACUS = "Opacus (per layer, R for every tensor)"
BOOK_KEEPING = "Book-Keeping (hybrid, flat automatic clipping)"
ALIKE = "where both clip flat by the same function,"


def rivals(cells: pd.DataFrame, value: str, *on: str) -> pd.DataFrame:
    """Pairs of Book-Keeping and Opacus that agree in dataset, network, noise and `on`."""
    pair = ways.book_keeping_automatic(cells), ways.opacus_per_layer(cells)
    return base.paired(*pair, value, [*CONTEXT, *on])


def controls(cells: pd.DataFrame, value: str, *on: str) -> pd.DataFrame:
    """The same where both clip alike: flat, by the same function."""
    pair = ways.book_keeping(cells), ways.opacus_flat(cells)
    return base.paired(*pair, value, [*CONTEXT, "clipping", *on])


def both(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of Opacus and of Book-Keeping."""
    return pd.concat([ways.opacus_per_layer(cells), ways.book_keeping_automatic(cells)])


def on(cells: pd.DataFrame, published: str) -> pd.DataFrame:
    """The cells on a published dataset, whatever it is called."""
    return cells[cells["published"] == published]
