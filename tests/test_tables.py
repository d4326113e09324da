"""Collecting the files of cells into tables."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import grid, write

from dpmedbench import claims, comparisons, summary, tables
from dpmedbench.errors import UserError

ROOT = Path(__file__).parents[1]
CELLS = grid(datasets=("umn", "duke"), models=("unet",), sigmas=(0.5, 1.0), seeds=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cells"), CELLS, epochs=3, images=2)


@pytest.mark.parametrize("kind", ["history", "scores"])
def test_parquet_tables_equal_a_naive_concatenation(kind, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 50)
    tables.collect(kind, folders, tmp_path / "table.parquet")
    naive = pd.concat(
        [pd.read_parquet(folder / f"{kind}.parquet") for folder in folders], ignore_index=True
    )
    found = tables.read(tmp_path / "table.parquet")
    assert list(found.columns[: len(tables.IDENTITY)]) == list(tables.IDENTITY)
    pd.testing.assert_frame_equal(found[naive.columns], naive, check_dtype=False)
    metadata = pq.read_metadata(tmp_path / "table.parquet")
    assert metadata.num_row_groups > 1
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_follow_the_order_of_the_cells(folders, tmp_path):
    tables.collect("cost", folders[::-1], tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet")
    expected = [(c.dataset, c.mechanism, c.privacy, c.seed) for c in reversed(CELLS)]
    columns = ["dataset", "mechanism", "privacy", "seed"]
    assert list(found[columns].itertuples(index=False, name=None)) == expected


def test_classes_of_all_datasets_stand_together_by_number(folders, tmp_path):
    tables.collect("history", folders, tmp_path / "table.parquet")
    names = pq.read_schema(tmp_path / "table.parquet").names
    first = names.index("val_dice_0")
    assert names[first : first + 9] == [f"val_dice_{c}" for c in range(9)]
    found = tables.read(tmp_path / "table.parquet")
    assert found.loc[found["dataset"] == "umn", "val_dice_8"].isna().all()
    assert found.loc[found["dataset"] == "duke", "val_dice_8"].notna().all()


def test_a_tenth_class_comes_after_the_ninth():
    schema = pa.schema([(f"val_dice_{c}", pa.float64()) for c in (0, 1, 10, 9)])
    expected = ["val_dice_0", "val_dice_1", "val_dice_9", "val_dice_10"]
    assert tables._classes_in_order(schema).names == expected


@pytest.mark.parametrize("order", [1, -1])
def test_both_tasks_stand_in_one_table(order, tmp_path):
    cells = grid(("duke",)) + grid(("aptos",), ("resnet18",))
    folders = write(tmp_path / "cells", cells[::order], epochs=3, images=2)
    for kind, own in (
        ("history", {"duke": "val_dice", "aptos": "test_accuracy"}),
        ("scores", {"duke": "dice", "aptos": "value"}),
    ):
        tables.collect(kind, folders, tmp_path / "table.parquet")
        for dataset, column in own.items():
            alone = [folder for folder in folders if dataset in folder.parts]
            expected = pd.concat(
                [pd.read_parquet(folder / f"{kind}.parquet") for folder in alone],
                ignore_index=True,
            )
            found = tables.read(tmp_path / "table.parquet", dataset=dataset)
            assert len(expected) > 0
            pd.testing.assert_frame_equal(found[expected.columns], expected)
            assert found[column].notna().any()
            others = found.columns.difference(expected.columns)
            assert set(own.values()) - {column} <= set(others)
            assert found[others].isna().all(axis=None)


@pytest.mark.parametrize("kind", ["cost", "privacy"])
def test_json_tables_hold_every_value(kind, folders, tmp_path):
    tables.collect(kind, folders, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet")
    assert list(found.columns) == list(tables.JSON_COLUMNS[kind])
    for row, folder in zip(found.to_dict("records"), folders, strict=True):
        for key, value in json.loads((folder / f"{kind}.json").read_text()).items():
            if value is not None:
                assert row[key] == value
            elif key.startswith("epsilon"):
                assert row[key] == math.inf
            else:
                assert pd.isna(row[key])


def test_an_epsilon_is_infinite_only_where_it_is_not_private(folders, tmp_path):
    tables.collect("privacy", folders, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet")
    infinite = np.isinf(found.filter(regex="^epsilon(_...)?$"))
    assert (infinite.all(axis=1) == (found["privacy"] == "none")).all()
    assert (infinite.any(axis=1) == (found["privacy"] == "none")).all()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("history", "history.parquet"),
        ("scores", "scores.parquet"),
        ("cost", "cost.json"),
        ("privacy", "privacy.json"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut short", "another file"])
def test_a_bad_file_is_named_and_no_table_is_left(kind, file, damage, tmp_path):
    folders = write(tmp_path / "cells", CELLS[:3], epochs=2, images=1)
    bad = folders[1] / file
    if damage == "missing":
        bad.unlink()
    elif damage == "cut short":
        bad.write_bytes(bad.read_bytes()[:-9])
    elif file.endswith(".json"):
        bad.write_text('{"study": "x"}')
    else:
        pq.write_table(pa.table({"study": ["x"]}), bad)
    out = tmp_path / "tables" / "table.parquet"
    with pytest.raises(UserError, match="expected") as caught:
        tables.collect(kind, folders, out)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_an_error_without_a_message_is_told_by_its_kind(tmp_path, monkeypatch):
    def fails(path):
        raise pa.ArrowInvalid("")

    folders = write(tmp_path / "cells", CELLS[:1], epochs=1, images=1)
    monkeypatch.setattr(tables, "_fragment", fails)
    with pytest.raises(UserError, match=r"cannot be read \(ArrowInvalid\)"):
        tables.collect("history", folders, tmp_path / "table.parquet")


def test_damaged_pages_are_named_too(tmp_path):
    folders = write(tmp_path / "cells", CELLS[:2], epochs=40, images=1)
    bad = folders[1] / "history.parquet"
    content = bytearray(bad.read_bytes())
    content[4:2000] = bytes(1996)
    bad.write_bytes(content)
    with pytest.raises(UserError) as caught:
        tables.collect("history", folders, tmp_path / "table.parquet")
    assert str(bad) in str(caught.value)


def test_a_column_that_one_cell_has_as_integers_or_nulls_is_widened(tmp_path):
    folders = write(tmp_path / "cells", CELLS[:3], epochs=2, images=1)
    for folder, values in zip(folders[1:], ([1, 2], [None, None]), strict=True):
        table = pq.read_table(folder / "history.parquet")
        at = table.schema.get_field_index("val_loss")
        pq.write_table(table.set_column(at, "val_loss", [values]), folder / "history.parquet")
    tables.collect("history", folders, tmp_path / "table.parquet")
    found = tables.read(tmp_path / "table.parquet")["val_loss"].tolist()
    assert found[2:4] == [1.0, 2.0]
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[4:]).all()


def test_a_column_of_two_types_is_refused(tmp_path):
    folders = write(tmp_path / "cells", CELLS[:2], epochs=2, images=1)
    table = pq.read_table(folders[1] / "history.parquet")
    text = table.set_column(table.schema.get_field_index("step"), "step", [["one", "two"]])
    pq.write_table(text, folders[1] / "history.parquet")
    with pytest.raises(UserError, match="step"):
        tables.collect("history", folders, tmp_path / "table.parquet")


def test_no_cells_and_an_unknown_kind_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match="no cells"):
        tables.collect("history", [], tmp_path / "table.parquet")
    with pytest.raises(UserError, match="expected one of history"):
        tables.collect("histories", folders, tmp_path / "table.parquet")


def test_a_cell_of_other_settings_is_refused(tmp_path):
    """As of a study that was edited while its jobs waited on a cluster."""
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"settings": {"training": {"learning_rate": 0.1}}}))
    cells = {str(tmp_path): {"training": {"learning_rate": 0.1}}}
    tables.check_settings(cells)
    cells[str(tmp_path)]["training"]["learning_rate"] = 0.2
    with pytest.raises(UserError, match=r"found training\.learning_rate 0\.1, expected 0\.2"):
        tables.check_settings(cells)
    path.unlink()
    with pytest.raises(UserError, match=r"manifest.json: found no such file"):
        tables.check_settings(cells)


def test_every_column_is_explained(tmp_path):
    """In docs/tables.md, where `a_0`, ... stands for every class and `a_*` for every score."""
    folders = write(tmp_path, grid() + grid(("aptos",), ("resnet18",)), epochs=1, images=2)
    unjudged = dataclasses.replace(claims.CLAIMS[0], decide=lambda results: None)
    there = {kind: set(columns) for kind, columns in tables.JSON_COLUMNS.items()}
    there |= {"summary": {*summary.COLUMNS}, "comparisons": {*comparisons.COLUMNS}}
    there["claims"] = set(unjudged.row(None))
    for kind in ("history", "scores", "predictions"):
        files = [folder / f"{kind}.parquet" for folder in folders]
        there[kind] = {n for file in files if file.exists() for n in pq.read_schema(file).names}
    said = {kind: set() for kind in there}
    for section in (ROOT / "docs" / "tables.md").read_text().split("\n## ")[1:]:
        title, _, rows = section.partition("\n")
        for kind in re.findall(r"`(\w+)`", title):
            for names in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE):
                said[kind] |= set(re.findall(r"`(.+?)`", names))
    for kind, columns in there.items():
        patterns = {
            name: re.compile(re.sub(r"_0$", r"_\\d+", name).replace("*", r"\w+"))
            for name in said[kind]
        }
        assert [c for c in columns if not any(p.fullmatch(c) for p in patterns.values())] == []
        assert [n for n, p in patterns.items() if not any(map(p.fullmatch, columns))] == []
