"""The tables of docs/performance.md, made from the Parquet files of the benchmarks beside it.

    python benchmarks/performance.py          write them
    python benchmarks/performance.py --check  fail where one differs from what would be written

docs/performance/ keeps what was measured: engines.parquet, step.parquet, study.parquet and
preprocess.parquet, as the benchmarks of these names write them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts")]

PAGE = ROOT / "docs" / "performance.md"
NAMES = {
    "unet": "U-Net",
    "nested_unet": "Nested U-Net",
    "resnet18": "ResNet-18",
    "none": "ordinary training",
    "bookkeeping": "Book-Keeping",
    "opacus": "Opacus",
    "fastdp": "fastDP",
    "rival": "without an engine:",
}


def files() -> dict[Path, str]:
    """The page with its text."""
    from dpmedbench.generated import between_marks

    text = PAGE.read_text("utf-8")
    for name, tables in {
        "engines": engines,
        "step": step,
        "study": study,
        "preprocess": preprocess,
    }.items():
        kept = PAGE.with_suffix("") / f"{name}.parquet"
        rows = tables(pd.read_parquet(kept)) if kept.exists() else ["Not measured yet."]
        lines = "\n".join(["", *rows]).rstrip() + "\n\n"
        text = between_marks(text, f"make performance, {name}", lines)
    return {PAGE: text}


def engines(measured: pd.DataFrame) -> Iterator[str]:
    """A table for each network and machine: a row an engine."""
    for _, rows in measured.groupby(["network", "side", "hardware"], sort=False):
        first = rows.iloc[0]
        yield from heading(first, f"batch {first.batch}")
        yield from header("engine", "step, s", "time", "step memory, MB", "memory", "largest batch")
        for row in rows.itertuples():
            mode = "" if row.engine == "none" else f" {row.mode}, {row.clipping}"
            mode += ", per layer" if row.clipping_style == "per_layer" else ""
            if row.reason:
                yield line(NAMES[row.engine] + mode, row.reason, *[""] * 4)
                continue
            yield line(
                NAMES[row.engine] + mode,
                f"{row.seconds:.2f}",
                f"{row.time_ratio:.2f}",
                f"{row.bytes / 1e6:.0f}",
                f"{row.memory_ratio:.2f}",
                "-" if pd.isna(row.largest_batch) else f"{row.largest_batch:,.0f}",
            )
        yield ""


def step(measured: pd.DataFrame) -> Iterator[str]:
    """A table for each network and machine: where an epoch's time goes, a column an engine."""
    for _, rows in measured.groupby(["network", "side", "hardware"], sort=False):
        first = rows.iloc[0]
        plain = rows.part == "training"
        shares = rows[~plain].pivot_table(index="part", columns="engine", values="seconds")
        shares = shares.loc[rows[~plain].part.unique(), rows[~plain].engine.unique()]
        yield from heading(first, f"batch {first.batch}")
        yield from header("part of an epoch", *(NAMES[engine] for engine in shares))
        for part, values in (shares / shares.sum()).iterrows():
            yield line(part, *("-" if pd.isna(value) else f"{value:.1%}" for value in values))
        yield line("in all, s", *(f"{seconds:.1f}" for seconds in shares.sum()))
        (ours,) = rows[rows.engine == "ordinary cell"].seconds
        yield ""
        for row in rows[plain & (rows.engine != "ordinary cell")].itertuples():
            yield f"Ordinary training takes {ours / row.seconds:.2f} times the {row.engine}.  "
        yield ""


def study(measured: pd.DataFrame) -> Iterator[str]:
    """A line for each study and machine."""
    yield from header(
        "study", "cells", "epochs", "machine", "in all, h", "cells an hour", "floor, h"
    )
    for row in measured.itertuples():
        yield line(
            f"{row.study}, {row.datasets}, {row.side} px",
            row.cells,
            row.epochs,
            row.hardware,
            f"{row.seconds / 3600:.2f}",
            f"{3600 * row.cells / row.seconds:.1f}",
            f"{row.floor / 3600:.2f}",
        )


def preprocess(measured: pd.DataFrame) -> Iterator[str]:
    """A table for each size of files: a line for each kind of work."""
    for (high, wide), rows in measured.groupby(["rows", "columns"], sort=False):
        first = rows.iloc[0]
        alone = rows.speed[rows.what == "decode"].item()
        files = f"**{first.images:,} JPEG files**, {wide} x {high} pixels, to {first.side}"
        yield f"{files} ({first.hardware})"
        yield ""
        yield from header("work", "images a second", "of decoding alone", "peak memory, MB")
        for row in rows.itertuples():
            share = f"{row.speed / alone:.0%}"
            yield line(row.what, f"{row.speed:,.0f}", share, f"{row.megabytes:.0f}")
        yield ""


def heading(row: pd.Series, batch: str) -> Iterator[str]:
    """What a table is of, and where it was measured."""
    yield f"**{NAMES[row.network]}**, {row.side} px, {batch} ({row.hardware}; torch {row.torch})"
    yield ""


def header(first: str, *others: str) -> Iterator[str]:
    """The first two lines of a table: numbers to the right."""
    yield line(first, *others)
    yield "|---|" + "---:|" * len(others)


def line(*cells: object) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    from dpmedbench import generated

    sys.exit(generated.main(files, ROOT, "performance"))
