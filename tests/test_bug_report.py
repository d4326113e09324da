"""A cell packed for a bug report: enough to see what went wrong, nothing of a patient."""

from __future__ import annotations

import json
import platform
import zipfile
from pathlib import Path

import pytest
from made_up_scans import write_store

from dpmedbench import bug_report, provenance, splits, store
from dpmedbench.errors import UserError

SETTINGS = {"model": {"network": "unet", "weights_file": "/srv/Jane Roe/weights.pth"}}
CELL = "duke/unet/private/sigma1/fold0/seed0"
IDS = {"Jane Roe", "Subject_01", "Subject_01/B-scan 3", "7", "4711"}


def pack(folder: Path, log: str) -> dict[str, str]:
    path = folder / "logs" / "study" / "train" / f"{CELL}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(log)
    results = [folder / "privacy.json", folder / "cost.json"]
    results[0].write_text('{"epsilon": 3.0}')
    bug_report.pack(folder / "report.zip", SETTINGS, [path], results, IDS)
    with zipfile.ZipFile(folder / "report.zip") as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def test_settings_versions_logs_and_results_are_in_it(tmp_path):
    found = pack(tmp_path, "1/3, loss 2.5\nerror in train: it broke\n")
    assert set(found) == {
        "README.md", "settings.json", "versions.json", "train.log", "privacy.json",
    }  # fmt: skip
    assert found["train.log"] == "1/3, loss 2.5\nerror in train: it broke\n"
    settings = json.loads(found["settings.json"])
    assert settings["model"] == {"network": "unet", "weights_file": "<path>"}
    versions = json.loads(found["versions.json"])
    assert versions["versions"]["torch"] == provenance.manifest()["versions"]["torch"]
    assert "host" not in versions


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("found patient 'Jane Roe' in train", "found patient '<patient>' in train"),
        ("Subject_01/B-scan 3: found no mask", "<patient>: found no mask"),
        ("Subject_01 but not Subject_010", "<patient> but not Subject_010"),
        ("patient '7' at epoch 7/9, 7 s left", "patient '<patient>' at epoch 7/9, 7 s left"),
        ("found 4711 twice", "found <patient> twice"),
        ("/srv/Jane Roe/a.png: broken", "<path>: broken"),
        ("'/srv/J. Roe/a.png' is broken", "'<path>' is broken"),
        ('  File "{site}/torch/nn.py", line 3', '  File "site-packages/torch/nn.py", line 3'),
        ('  File "{root}/workflow/scripts/train.py"', '  File "workflow/scripts/train.py"'),
        ("results/tiny/data/duke.h5: 1/3 of /dev/null", "results/tiny/data/duke.h5: 1/3 of <path>"),
        ("process 12 on {host}", "process 12 on <host>"),
        ("loss 1e-3/4e-2, validation Dice 0.5", "loss 1e-3/4e-2, validation Dice 0.5"),
    ],
)
def test_names_and_folders_are_replaced(line, sent):
    values = {
        "root": provenance.ROOT.parents[2],
        "site": "/home/jane/.venv/lib/python3.12/site-packages",
        "host": platform.node(),
    }
    assert bug_report.cleaned(line.format(**values), IDS) == sent


def test_names_come_from_the_store_and_the_splits(tmp_path):
    data, table = tmp_path / "duke.h5", tmp_path / "duke.splits.csv"
    assert bug_report.names(data, table) == set()  # neither was made: the report is
    write_store(data, "duke", 6, (32, 32))
    with store.open_store(data) as records:
        stored = {*records.patients, *records.sources}
        frame = splits.make(
            records.patients, records.sources, method="ratio", ratios=(0.4, 0.3, 0.3)
        )
        splits.write(frame, table, records)
    assert bug_report.names(data, table) == stored
    table.write_text(table.read_text() + "0,train,Mistyped,3,Elsewhere\n0,train\n")
    assert bug_report.names(data, table) == stored | {"Mistyped", "Elsewhere"}
    table.write_text('\ufeff"' + table.read_text().replace("\n", '",,,,\n', 1))  # a spreadsheet
    data.write_bytes(b"broken")
    assert bug_report.names(data, table) == stored | {"Mistyped", "Elsewhere"}


def test_a_cell_that_never_ran_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="found no log of this cell, expected one; run the cell"):
        bug_report.pack(tmp_path / "report.zip", SETTINGS, [], [], set())
    assert not (tmp_path / "report.zip").exists()
