"""Tables and figures as LaTeX, for pdfTeX with the packages that come with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("array", "booktabs", "graphicx")
PAGE_OF_ROWS = 35
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
LONG_TEXT = 24  # characters from which a column wraps its lines
LEAST = 0.4  # of the line, for all columns that wrap
SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "γ": r"$\gamma$",
        "δ": r"$\delta$",
        "ε": r"$\varepsilon$",
        "κ": r"$\kappa$",
        "ρ": r"$\rho$",
        "σ": r"$\sigma$",
        "±": r"$\pm$",
        "–": "--",
        "“": "``",
        "”": "''",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "∞": r"$\infty$",
        "≈": r"$\approx$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "−": "$-$",
        "√": r"$\surd$",
        "→": r"$\to$",
        "²": r"\textsuperscript{2}",
    }
)


def escape(text: str) -> str:
    """Text as pdfTeX prints it; a character that it has not becomes a question mark."""
    escaped = text.translate(SPECIAL)
    return escaped.encode("latin-1", "replace").decode("latin-1")


def tables(groups: Mapping[str, pd.DataFrame], title: str, caption: str, label: str) -> str:
    """A table of texts under each heading of `groups`, with rules as booktabs has them.

    The first has the caption, the others their heading alone. One that is too wide is made
    smaller, one that is too long is broken.
    """
    texts = []
    for name, rows in groups.items():
        for start in range(0, len(rows), PAGE_OF_ROWS):
            about = f"{title}: {name}" if name else title
            about += " (continued)." if start else "."
            texts.append(
                _table(
                    rows.iloc[start : start + PAGE_OF_ROWS],
                    about if texts else f"{about} {caption}",
                    f"tab:{label}:{len(texts) + 1}",
                )
            )
    return "\n".join(texts)


def _table(rows: pd.DataFrame, caption: str, label: str) -> str:
    rows = rows.map(escape).rename(columns=escape)
    text = rows.to_latex(
        index=False,
        escape=False,
        column_format="".join(_column(rows, column) for column in rows),
        caption=escape(caption),
        label=label,
        position="tbp",
    )
    text = text.replace(r"\begin{tabular}", f"\\centering\\small\n{FIT}{{%\n\\begin{{tabular}}")
    return text.replace(r"\end{tabular}", "\\end{tabular}}")


def _column(rows: pd.DataFrame, column: str) -> str:
    """The format of a column; those of long texts share the line by their lengths."""
    widths = {name: rows[name].str.len().max() for name in rows}
    long = sum(width for width in widths.values() if width > LONG_TEXT)
    if widths[column] <= LONG_TEXT:
        return "l"
    short = sum(width for width in widths.values() if width <= LONG_TEXT)
    share = max(LEAST, 1 - 0.01 * short)  # more than the line: `FIT` makes the table smaller
    return (
        rf">{{\raggedright\arraybackslash}}p{{{0.9 * share * widths[column] / long:.2f}\linewidth}}"
    )


def figure(path: str, caption: str, label: str) -> str:
    """A figure as wide as the text."""
    return "\n".join(
        (
            r"\begin{figure*}[tbp]",
            r"\centering",
            rf"\includegraphics[width=\textwidth,height=0.8\textheight,keepaspectratio]{{{path}}}",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{fig:{label}}}",
            r"\end{figure*}",
            "",
        )
    )
