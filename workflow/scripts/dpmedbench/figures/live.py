"""What the data of a figure say, in words: for the sentence that ends its caption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpmedbench.figures import palette, style, wording

if TYPE_CHECKING:
    import pandas as pd

MOST = 10  # mechanisms, over all models, that a sentence names


def last_epoch(
    history: pd.DataFrame, column: str, form: str = ".2f", unit: str = "", what: str = ""
) -> str:
    """What every setting reaches in the last epoch, the mean over its runs; `what` it is."""
    finite = history[np.isfinite(history[column].astype(float))]
    if finite.empty:
        return ""
    last = finite[finite["epoch"] == finite["epoch"].max()]
    last.attrs = history.attrs
    when = f"{what} after epoch" if what else "After epoch"
    return f"{when} {last['epoch'].max()}: {spans(last, column, form, unit)}."


def spans(frame: pd.DataFrame, column: str, form: str = ".3g", unit: str = "") -> str:
    """ "non-private 0.73, Opacus flat 0.45 (sigma = 0.3) to 0.37 (sigma = 1)", model by model.

    Of a setting with several rows, their mean; of noise levels, the least and the most. Where there
    are too many mechanisms for a sentence, the private settings with the lowest and highest value.
    """
    return _by_model(frame, style.SETTING, column, form, unit, _each)


def ranges(
    frame: pd.DataFrame, column: str, form: str = ".3g", unit: str = "", *, over: Sequence[str] = ()
) -> str:
    """ "non-private 4.1 s to 4.3 s, Opacus flat 8.1 s to 9.7 s", model by model, like `spans`.

    The lowest and highest of all noise levels and of what `over` names, such as epochs; means over
    runs.
    """
    return _by_model(frame, [*style.SETTING, *over], column, form, unit, _range)


def _by_model(
    frame: pd.DataFrame, key: list[str], column: str, form: str, unit: str, each: Callable
) -> str:
    means = frame.groupby(key, sort=False)[column].mean().dropna()
    models = list(frame["model"].unique())
    tell = each if len(means.groupby(["model", "mechanism"])) <= MOST else _ends
    said = []
    for model in models:
        words = ", ".join(tell(frame, means[model], lambda value: _text(value, form, unit)))
        said.append(f"{wording.name(model)}: {words}" if len(models) > 1 else words)
    return "; ".join(said)


def _range(frame: pd.DataFrame, means: pd.Series, text: Callable[[float], str]) -> Iterator[str]:
    """A clause for each mechanism of a model: its lowest and its highest value."""
    of_mechanism = dict(list(means.groupby("mechanism")))
    for mechanism in palette.colours(frame):
        if mechanism in of_mechanism:
            values = of_mechanism[mechanism]
            ends = dict.fromkeys((text(values.min()), text(values.max())))
            yield f"{wording.name(mechanism)} {' to '.join(ends)}"


def _each(frame: pd.DataFrame, means: pd.Series, text: Callable[[float], str]) -> Iterator[str]:
    """A clause for each mechanism of a model: least noise and most."""
    for mechanism in palette.colours(frame):
        if mechanism not in means.index.get_level_values("mechanism"):
            continue
        values = means[mechanism]
        levels = [*wording.noises(values.index), *(["none"] if "none" in values.index else [])]
        ends = [
            text(values[level]) + (f" ({wording.noise_name(level)})" if level != "none" else "")
            for level in dict.fromkeys((levels[0], levels[-1]))
        ]
        if len(ends) == 2 and text(values[levels[0]]) == text(values[levels[-1]]):
            ends = [f"{text(values[levels[0]])} (least and most noise)"]
        yield f"{wording.name(mechanism)} {' to '.join(ends)}"


def _ends(frame: pd.DataFrame, means: pd.Series, text: Callable[[float], str]) -> Iterator[str]:
    """A clause for each mechanism of a model that is not private, and one for all that are."""
    private = means.index.get_level_values("privacy") != "none"
    yield from _range(frame, means[~private], text)
    values = means[private]
    if values.empty:
        return
    ends = [
        f"{text(values[at])} ({wording.name(at[0])}, {wording.noise_name(at[1])})"
        for at in (values.idxmin(), values.idxmax())
    ]
    settings = len(values.groupby(["mechanism", "privacy"]))
    yield f"{settings} private settings {' to '.join(ends)}"


def _text(value: float, form: str, unit: str) -> str:
    return f"{wording.number(value, form)}{unit}"
