"""Text for reStructuredText, in which Snakemake's report takes captions and its front page."""

from __future__ import annotations

import re


def escape(text: str) -> str:
    """`text` in one line, in which neither docutils nor Jinja finds any markup."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(text.split()))


def escaped(value: object) -> object:
    """`value`, plain as JSON is, with every text in it escaped but the keys of mappings."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: escaped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(part) for part in value]
    return value
