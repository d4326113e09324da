"""The colours and line styles of mechanisms and of the noise that they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb

from dpmedbench.figures import wording
from dpmedbench.results import CONSTANT

if TYPE_CHECKING:
    import pandas as pd

NON_PRIVATE = ("#000000", "#777777", "#aaaaaa")
# seaborn's colour-blind palette without its grey, which is kept for what is not private.
MECHANISMS = (0, 1, 2, 3, 4, 9, 5, 8, 6)
# Beyond the palette its darker twins: the first five are as far from each other, from the palette
# and from black as the palette is in itself, whichever cones a reader lacks.
DARKER, TWINS = 0.4, (3, 0, 8, 5, 9, 1, 2, 4, 6)
DASHES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))


def private_mechanisms(frame: pd.DataFrame) -> dict[str, bool]:
    """The mechanisms of a table by name, and whether each is private."""
    return {
        name: bool((levels != "none").any())
        for name, levels in frame.groupby("mechanism")["privacy"]
        if name != CONSTANT
    }


def assign(mechanisms: Mapping[str, bool]) -> dict[str, str]:
    """A colour for each mechanism, by name, in the order given: black and greys for the first that
    are not private, then the colour-blind palette, and where it does not do its darker twin."""
    others = [name for name, is_private in mechanisms.items() if not is_private]
    greys = dict(zip(others, NON_PRIVATE, strict=False))
    coloured = [name for name in mechanisms if name not in greys]
    palette = np.array(sns.color_palette("colorblind"))
    if len(coloured) <= len(MECHANISMS) + len(TWINS):
        colours = [*palette[list(MECHANISMS)], *(palette[list(TWINS)] * DARKER)]
    else:
        colours = sns.color_palette("husl", len(coloured))
    return greys | {name: to_hex(colour) for name, colour in zip(coloured, colours, strict=False)}


def colours(frame: pd.DataFrame) -> dict[str, str]:
    """Colours of the mechanisms in `frame`, as given out for the whole study it comes from."""
    given = frame.attrs.get("colours") or assign(private_mechanisms(frame))
    present = set(frame["mechanism"])
    return {name: colour for name, colour in given.items() if name in present}


def settings(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(mechanism, privacy) of the mechanisms in `frame`, in the order of their colours and, of one
    mechanism, from no noise to the most."""
    levels = ["none", *wording.noises(frame["privacy"])]
    found = set(zip(frame["mechanism"], frame["privacy"], strict=True))
    return [(name, level) for name in colours(frame) for level in levels if (name, level) in found]


def shade(colour: str, rank: int, count: int) -> str:
    """`colour`, the lighter the more noise: `rank` 0 (least noise) to `count` - 1."""
    white = 0.55 * rank / max(count - 1, 3)
    return to_hex(np.array(to_rgb(colour)) * (1 - white) + white)


def dashes(rank: int) -> object:
    """A line style for the noise of `rank`, beside its shade."""
    return DASHES[rank % len(DASHES)]
