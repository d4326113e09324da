"""What only a GPU can show: the same sums, cells that train, go on and are measured there."""

import copy
import math

import pytest
import torch
import zoo
from little_cells import BOOKKEEPING, PRIVATE, SPARSIFIED, stop_after, trained
from per_sample_loop import clipped_sums, distance, limits, sums_of

from dpmedbench import mechanisms, outcome
from dpmedbench.losses import segmentation_loss

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WAYS = [
    (engine, mode, clipping, style)
    for engine in ("bookkeeping", "opacus")
    for mode, found in mechanisms.capabilities(engine).modes.items()
    for clipping, style in sorted(found.combinations)
    if clipping != "adaptive"  # abadi with a threshold that moves
]


@pytest.mark.parametrize(("engine", "mode", "clipping", "style"), WAYS)
@pytest.mark.parametrize("name", ["unet", "resnet18"])
def test_sums_on_the_device_are_those_of_the_loop(name, engine, mode, clipping, style):
    model, inputs, targets, losses = zoo.case(name, batch=5)
    thresholds = limits(model, style)
    wanted = clipped_sums(copy.deepcopy(model), losses, inputs, targets, clipping, thresholds)
    inputs, targets = inputs.to(DEVICE), targets.to(DEVICE)
    made = mechanisms.load(engine).build(model.to(DEVICE), mode, clipping, thresholds)
    found = [total.cpu() for total in sums_of(made, losses, inputs, targets, split=3)]
    assert distance(found, wanted) < 1e-9 * distance(wanted, [0 * total for total in wanted])


def test_the_loss_of_a_sample_is_that_of_the_cpu():
    _, _, targets, _ = zoo.case("unet")
    logits = torch.randn(3, zoo.CLASSES, zoo.SIDE, zoo.SIDE, dtype=torch.float64)
    found = segmentation_loss(logits.to(DEVICE), targets.to(DEVICE)).cpu()
    torch.testing.assert_close(found, segmentation_loss(logits, targets))


@pytest.mark.parametrize("mechanism", [None, PRIVATE, BOOKKEEPING, SPARSIFIED])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cell_trains_and_is_measured(tmp_path, mechanism, precision):
    cell = trained(tmp_path, mechanism, execution={"device": DEVICE}, epochs=4, precision=precision)
    assert next(cell.network.parameters()).device.type == DEVICE
    assert all(math.isfinite(row["train_loss"]) for row in cell.history)
    cost = outcome.costs(cell)
    assert cost["device"] == torch.cuda.get_device_name()
    assert cost["peak_gpu_bytes"] > sum(p.numel() * 4 for p in cell.network.parameters())
    assert 0 < cost["step_seconds_p10"] <= cost["step_seconds_p90"]
    if mechanism:
        privacy = outcome.privacy(cell)
        assert privacy["noise_additions"] == privacy["steps"] * len(cell.engine.engine.parameters)
        assert privacy["noise_ratio_realised"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("mechanism", [PRIVATE, BOOKKEEPING])
def test_a_killed_cell_goes_on_from_its_checkpoint(tmp_path, mechanism, monkeypatch, capsys):
    """With the same draws; sums differ in the last digits, which Adam makes larger."""
    straight = trained(tmp_path / "a", mechanism, execution={"device": DEVICE}, epochs=4)
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", mechanism, execution={"device": DEVICE}, epochs=4)
    monkeypatch.undo()
    again = trained(tmp_path / "b", mechanism, execution={"device": DEVICE}, epochs=4)
    assert "going on after epoch 2 from" in capsys.readouterr().err
    draws = [[row["samples"] for row in cell.history] for cell in (straight, again)]
    assert draws[0] == draws[1]
    assert again.history[-1]["train_loss"] == pytest.approx(
        straight.history[-1]["train_loss"], rel=0.05
    )


def test_cells_that_share_a_gpu_say_so(tmp_path):
    shared = trained(tmp_path, execution={"device": DEVICE, "cells_per_gpu": 2}, epochs=1)
    assert outcome.costs(shared)["device"].endswith(", shared by 2 cells")
