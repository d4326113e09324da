"""All the cells' files of one kind as one Parquet table, and that table as a DataFrame."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpmedbench.errors import UserError, first_line
from dpmedbench.files import read_json, replacing
from dpmedbench.unfinished import other_settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

IDENTITY = {
    "study": "string",
    "dataset": "string",
    "model": "string",
    "mechanism": "string",
    "privacy": "string",
    "fold": "int64",
    "seed": "int64",
    "engine": "string",
    "mode": "string",
    "clipping": "string",
    "clipping_style": "string",
    "noise_multiplier": "float64",
    "target_epsilon": "float64",
}
COST = IDENTITY | {
    "device": "string",
    "num_parameters": "int64",
    "batch_size": "int64",
    "physical_batch_size": "int64",
    "step_seconds_p10": "float64",
    "step_seconds_p50": "float64",
    "step_seconds_p90": "float64",
    "step_seconds_mean": "float64",
    "steps_measured": "int64",
    "epoch_seconds_p50": "float64",
    "images_per_second": "float64",
    "peak_host_bytes": "int64",
    "peak_gpu_bytes": "int64",
    "training_seconds": "float64",
    "validation_seconds": "float64",
    "start_to_first_step_seconds": "float64",
}
PRIVACY = IDENTITY | {
    "unit": "string",
    "sampling": "string",
    "neighbouring": "string",
    "accountant": "string",
    "delta": "float64",
    "num_records": "int64",
    "sample_rate": "float64",
    "steps": "int64",
    "epochs": "int64",
    "noise_std": "float64",
    "max_grad_norm": "float64",
    "effective_max_grad_norm": "float64",
    "epsilon": "float64",
    "epsilon_rdp": "float64",
    "epsilon_prv": "float64",
    "epsilon_gdp": "float64",
    "epsilon_pld": "float64",
    "sampler": "string",
    "batch_size_expected": "float64",
    "batch_size_realised_mean": "float64",
    "empty_batches": "int64",
    "noise_additions": "int64",
    "sparsification": "float64",
    "noise_schedule": "string",
    "beta": "float64",
    "epsilon_per_pixel": "float64",
    "epsilon_per_image": "float64",
    "note": "string",
}
JSON_COLUMNS = {"cost": COST, "privacy": PRIVACY}
KINDS = ("history", "scores", "cost", "privacy")
PREDICTIONS = "predictions"  # of classifications alone
ROWS_PER_GROUP = 20_000


def collect(kind: str, cell_folders: Iterable[str | Path], out_path: str | Path) -> None:
    """Join one file of every cell into the Parquet table `out_path` (zstd), cell after cell.

    `kind` is "history", "scores" or "predictions" (`<cell>/<kind>.parquet`) or "cost" or "privacy"
    (`<cell>/<kind>.json`: one row a cell). The rows follow the order of `cell_folders`. Memory
    does not grow with the number of rows: they are written in groups of about 20,000. Parquet
    columns that only some cells have (those of a task, a Dice per class) are null in the others;
    keys of a JSON file that the table does not have are left out of it.

    JSON has no infinity: an `epsilon*` that is null becomes +inf, which is true of a cell that is
    not private and of one without a finite bound (`epsilon_per_*`: whose images have no noise).
    Any other null stays null.

    Raises UserError naming the cell file that is missing, broken or without an expected column.
    """
    if kind not in (*KINDS, PREDICTIONS):
        raise UserError(
            f"tables: found kind '{kind}', expected one of {', '.join((*KINDS, PREDICTIONS))}"
        )
    folders = [Path(folder) for folder in cell_folders]
    if not folders:
        raise UserError(f"{out_path}: found no cells to collect, expected at least one")
    schema, batches = (_from_json if kind in JSON_COLUMNS else _from_parquet)(kind, folders)

    import pyarrow.parquet as pq

    with (
        replacing(out_path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for table in _grouped(batches, schema):
            writer.write_table(table)


def check_settings(cells: Mapping[str, Mapping]) -> None:
    """Raise UserError where a cell was trained with other settings than `cells` has, by folder.

    A job on a cluster reads the configuration when it starts: cells that start after an edit of it
    are trained with the new settings, and Snakemake has the old ones on record.
    """
    for folder, settings in cells.items():
        path = Path(folder) / "manifest.json"
        with _naming(path):
            why = other_settings(read_json(path), settings)
        if why:
            raise UserError(
                f"{folder}: {why}; was the configuration edited while the study ran? Run the same "
                "command again, and where it says so again, delete this folder first"
            )


def read(
    path: str | Path, columns: Sequence[str] | None = None, dataset: str | None = None
) -> pd.DataFrame:
    """A collected table (the rows of `dataset`) as a DataFrame, in the order of the cells.

    Nulls arrive as NaN in number columns (integers with nulls become floats) and as missing in
    text columns. Of a cell that is not private: `epsilon*` are +inf; norms, rates and delta NaN.
    """
    import pyarrow.parquet as pq

    rows = None if dataset is None else [("dataset", "=", dataset)]
    return pq.read_table(path, columns=columns and list(columns), filters=rows).to_pandas()


def write(frame: pd.DataFrame, out_path: str | Path) -> None:
    """Write a table that was made from others (zstd), whole or not at all."""
    with replacing(out_path) as temporary:
        frame.to_parquet(temporary, compression="zstd", index=False)


def _from_parquet(kind: str, folders: list[Path]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa

    paths = [folder / f"{kind}.parquet" for folder in folders]
    distinct: dict[pa.Schema, Path] = {}
    for path in paths:
        with _naming(path):
            distinct.setdefault(_fragment(path).physical_schema.remove_metadata(), path)
    for schema, path in distinct.items():
        for column in IDENTITY:
            if column not in schema.names:
                raise UserError(
                    f"{path}: found no column '{column}', expected those of a cell's identity; "
                    "delete the cell's folder and run the workflow again"
                )
    try:
        schema = pa.unify_schemas(list(distinct), promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(
            f"{kind}.parquet: the cells disagree on the type of a column ({error}); make them "
            "again with one version of the workflow"
        ) from error
    schema = _classes_in_order(schema)

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            with _naming(path):
                yield from _fragment(path).to_batches(schema=schema, use_threads=False)

    return schema, batches()


def _fragment(path: Path) -> pa.dataset.Fragment:
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    return ds.ParquetFileFormat().make_fragment(str(path), LocalFileSystem())


def _classes_in_order(schema: pa.Schema) -> pa.Schema:
    """Put the columns `..._<c>` of further classes beside those of the first, by number."""

    def key(position: int) -> tuple[int, int]:
        stem = re.fullmatch(r"(.+_)\d+", schema.names[position])
        if stem is None:
            return position, 0
        first = next(i for i, name in enumerate(schema.names) if name.startswith(stem[1]))
        return first, int(schema.names[position][len(stem[1]) :])

    import pyarrow as pa

    return pa.schema([schema.field(i) for i in sorted(range(len(schema)), key=key)])


def _from_json(kind: str, folders: list[Path]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow as pa

    columns = JSON_COLUMNS[kind]
    schema = pa.schema([(name, pa.type_for_alias(dtype)) for name, dtype in columns.items()])

    def batches() -> Iterator[pa.RecordBatch]:
        for folder in folders:
            path = folder / f"{kind}.json"
            with _naming(path):
                cell = json.loads(path.read_text(encoding="utf-8"))
                row = {name: _finite_or_infinite(name, cell[name]) for name in columns}
                yield pa.RecordBatch.from_pylist([row], schema=schema)

    return schema, batches()


def _finite_or_infinite(name: str, value: object) -> object:
    return float("inf") if value is None and name.startswith("epsilon") else value


def _grouped(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= ROWS_PER_GROUP:
            yield pa.Table.from_batches(held, schema)
            held, rows = [], 0
    yield pa.Table.from_batches(held, schema)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading one cell file into a sentence that names the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, KeyError, json.JSONDecodeError, UnicodeError, pa.ArrowException) as error:
        match error:
            case FileNotFoundError():
                found = "no such file"
            case KeyError():
                found = f"no key {error}"
            case json.JSONDecodeError():
                found = f"broken JSON ({error})"
            case _:
                found = f"what cannot be read ({first_line(error)})"
        raise UserError(
            f"{path}: found {found}, expected the file of a finished cell; "
            "delete the cell's folder and run the workflow again"
        ) from error
