"""What a cell that ran leaves behind: its files, whole and readable."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from little_cells import EXECUTION, PRIVATE, data, same_weights, settings, trained
from safetensors.torch import load_file

from dpmedbench import outcome
from dpmedbench.training import Trainer


def test_the_seconds_of_an_epoch_are_their_median(tmp_path):
    cell = trained(tmp_path, epochs=2)
    for row, seconds in zip(cell.history, (1.0, 3.0), strict=True):
        row["seconds"] = seconds
    assert outcome.costs(cell)["epoch_seconds_p50"] == 2.0
    assert outcome.privacy(cell)["noise_schedule"] is None


def test_outputs_are_whole_and_readable(tmp_path):
    names = ("model", "history", "privacy", "cost", "manifest")
    paths = SimpleNamespace(**{name: tmp_path / f"{name}.out" for name in names})
    wanted = settings(PRIVATE)
    cell = Trainer(wanted, EXECUTION, data(), tmp_path / "state", "digest of the code")
    cell.run()
    outcome.write(cell, paths)
    assert same_weights(load_file(paths.model), cell.weights())
    table = pq.read_table(paths.history)
    assert table.num_rows == 3
    assert table.column_names[:13] == list(wanted["identity"])
    cost = json.loads(paths.cost.read_text())
    assert cost["step_seconds_p10"] <= cost["step_seconds_p50"] <= cost["step_seconds_p90"]
    assert cost["steps_measured"] == 3
    assert cost["peak_host_bytes"] > 50e6
    privacy = json.loads(paths.privacy.read_text())
    assert privacy["epsilon"] == cell.plan.epsilon(6)
    assert privacy["noise_ratio_realised"] == pytest.approx(1.0, rel=0.1)
    manifest = json.loads(paths.manifest.read_text())
    assert manifest["settings"] == wanted
    assert manifest["code"] == "digest of the code"
    assert manifest["versions"]["torch"] == torch.__version__
