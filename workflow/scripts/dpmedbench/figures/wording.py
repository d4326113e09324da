"""How figures write the names of a configuration."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence

SYMBOLS = {"sigma": "σ", "eps": "target ε", "beta": "β"}
BESIDE = 28  # letters
AXIS_NAMES = {"sigma": "noise multiplier σ", "eps": "target ε", "beta": "noise scale β"}


def noises(labels: Sequence[str]) -> list[str]:
    """The distinct privacy labels, least noise first, without "none"."""
    return sorted({label for label in labels if label != "none"}, key=_noise_key)


def _noise_key(label: str) -> tuple[str, float, str]:
    kind, value = split_noise(label)
    return kind, -value if kind == "eps" else value, label


def split_noise(label: str) -> tuple[str, float]:
    """ "sigma0.5" to ("sigma", 0.5); a label of another shape to (label, NaN)."""
    match = re.fullmatch(r"([a-z_]+?)([0-9.]+(?:e[-+]?\d+)?)", label)
    return (match[1], float(match[2])) if match else (label, float("nan"))


def noise_name(label: str) -> str:
    """ "sigma0.5" to "σ = 0.5"."""
    kind, value = split_noise(label)
    return label if math.isnan(value) else f"{SYMBOLS.get(kind, kind)} = {value:g}"


def setting(mechanism: str, privacy: str, separator: str = ", ") -> str:
    """ "Opacus flat, σ = 0.5"; what is not private by its name alone."""
    return name(mechanism) + ("" if privacy == "none" else separator + noise_name(privacy))


def noise_axis(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Name and tick labels of an axis of privacy labels ("none" becomes "no noise")."""
    kinds = {split_noise(label)[0] for label in labels if label != "none"}
    if len(kinds) == 1:
        values = ["none" if x == "none" else f"{split_noise(x)[1]:g}" for x in labels]
        return AXIS_NAMES.get(*kinds, *kinds), values
    return "noise", ["none" if x == "none" else noise_name(x) for x in labels]


def name(text: str) -> str:
    """A configuration's name as people write it: "nested_unet" to "Nested U-Net"."""
    text = text.replace("non_private", "non-private").replace("_", " ")
    text = re.sub(r"\bunet\b", "U-Net", text)
    text = re.sub(r"\bresnet(\d+)", r"ResNet\1", text)
    text = text.replace("per layer", "per-layer")
    return text[:1].upper() + text[1:]


def rows(names: Iterable[str]) -> list[str]:
    """`name` of each, in as many lines as stand beside an axis."""
    return [textwrap.fill(name(text), BESIDE, break_on_hyphens=False) for text in names]


def power(value: float) -> str:
    """A small number as people write it: "1e-5"."""
    return f"{value:g}".replace("e-0", "e-")


def number(value: float, form: str = ".3g") -> str:
    """A number as people read it: "0.73", "1,670", "∞"; never "1.67e+03"."""
    text = f"{value:{form}}".replace("inf", "∞")
    return f"{value:,.0f}" if "e+" in text else text
