"""The folder for a paper: figures as PDF, tables as LaTeX and CSV, and what is what."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpmedbench.report import PAGES, latex


@dataclass(frozen=True)
class Drawn:
    """A figure of the report.

    Attributes:
        path: of the PDF; its caption lies beside it as .txt.
        title: of the figure.
        dataset: whose rows it shows; empty where it shows all.
        study: the published study that it belongs to; empty where to none.
        label: what it is there, such as "Figures 5 and 6".
    """

    path: Path
    title: str
    dataset: str = ""
    study: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """File name in the export, such as bookkeeping_fig05-06_duke_time_per_epoch.pdf."""
        found = re.findall(r"\d+", self.label) if self.label.startswith("Figure") else []
        parts = (
            self.study,
            "fig" * bool(found) + "-".join(f"{int(number):02}" for number in found),
            self.dataset,
            self.path.stem,
        )
        return "_".join(part for part in parts if part) + ".pdf"


def write(folder: Path, title: str, figures: Iterable[Drawn], pages: Iterable[Path]) -> None:
    """Fill `folder`.

    Args:
        folder: for figures/, tables/, figures.tex, tables.tex and README.md.
        title: of the study.
        figures: figures.tex has them by name: by published study and number there.
        pages: of the report, as .tex and .csv.
    """
    drawn = sorted(figures, key=lambda figure: figure.name)
    captions = {figure.name: _caption(figure) for figure in drawn}
    for figure in drawn:
        _copy(figure.path, folder / "figures" / figure.name)
    for page in pages:
        _copy(page, folder / "tables" / page.name)
    texts = [page for page in pages if page.suffix == ".tex"]
    _text(
        folder / "figures.tex",
        *(
            latex.figure(f"figures/{figure.name}", captions[figure.name], Path(figure.name).stem)
            for figure in drawn
        ),
    )
    _text(folder / "tables.tex", *(rf"\input{{tables/{page.name}}}" for page in texts))
    _text(
        folder / "README.md",
        f"# {title}",
        "",
        "Made by DP-MedBench. `figures.tex` and `tables.tex` hold every figure and table with its",
        f"caption; their preamble needs {', '.join(f'`{name}`' for name in latex.PACKAGES)}.",
        "",
        "| figure | published as | caption |",
        "|---|---|---|",
        *(
            f"| `figures/{figure.name}` | {figure.label or '-'} | {captions[figure.name]} |"
            for figure in drawn
        ),
        "",
        "| table (`.tex` as printed, `.csv` as numbers) | caption |",
        "|---|---|",
        *(
            f"| `tables/{page.stem}` | {PAGES[page.stem].title}. {PAGES[page.stem].caption} |"
            for page in texts
        ),
    )


def _caption(figure: Drawn) -> str:
    words = " ".join(figure.path.with_suffix(".txt").read_text(encoding="utf-8").split())
    return f"{figure.title}. {words}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
