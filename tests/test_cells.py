"""The grid of a study: its cells, and what each is trained with."""

import json

import pytest
from default_study import DEFAULT, changed

from dpmedbench import cells, config
from dpmedbench.errors import UserError


def test_the_grid_is_the_product_and_non_private_cells_have_no_noise():
    study = config.load(
        changed(
            ("datasets.phantom_duke.split", {"method": "kfold", "folds": 4}),
            ("grids", [DEFAULT["grids"][0] | {"folds": [0, 3], "seeds": [0, 1, 2]}]),
            ("grids.0.noise_multiplier", [0.5, 1.0]),
        )
    )
    found = cells.every(study)
    assert len(found) == 2 * 3 * (1 + 2)
    assert len({cell.folder for cell in found}) == len(found)
    assert {cell.privacy for cell in found if cell.mechanism == "non_private"} == {"none"}


def test_several_grids_are_joined_without_repeats():
    grid = {"datasets": ["phantom_duke"], "models": ["unet"], "mechanisms": ["opacus_flat"]}
    study = config.load(
        changed(
            (
                "grids",
                [
                    grid | {"noise_multiplier": [0.5, 1]},
                    grid | {"noise_multiplier": [1.0]},
                    grid | {"target_epsilon": [8]},
                ],
            )
        )
    )
    assert [cell.privacy for cell in cells.every(study)] == ["sigma0.5", "sigma1", "eps8"]


def test_a_network_for_another_task_is_left_out_with_the_dataset_it_is_not_for():
    study = config.load(changed(("grids.0.models", ["unet", "resnet18"])))
    ((reason, folders),) = cells.left_out(study).items()
    assert reason == "network resnet18 is for classification, dataset phantom_duke for segmentation"
    assert {folder.split("/")[1] for folder in folders} == {"resnet18"}
    every = {cell.folder for cell in cells.every(study)}
    assert {folder.split("/")[1] for folder in every - set(folders)} >= {"unet"}


def test_noise_levels_that_would_share_a_folder_are_refused():
    grid = DEFAULT["grids"][0]
    grids = [grid | {"noise_multiplier": [1.0, 2]}, grid | {"noise_multiplier": [1.0000001]}]
    study = config.load(changed(("grids", grids)))
    with pytest.raises(
        UserError, match=r"noise levels 1.0 and 1.0000001, .* phantom_duke/.*sigma1/"
    ):
        cells.every(study)


def test_delta_is_of_private_cells_only():
    study, other = (
        config.load(changed(("privacy.delta", delta)))
        for delta in (DEFAULT["privacy"]["delta"], 2e-3)
    )
    again = {
        study.mechanisms[cell.mechanism].engine
        for cell in cells.every(study)
        if cells.settings(study, cell) != cells.settings(other, cell)
    }
    assert again == {"opacus", "bookkeeping"}


def test_each_mechanism_may_have_its_own_learning_rate():
    study = config.load(changed(("mechanisms.opacus_flat.learning_rate", 0.123)))
    rates = {
        cell.mechanism: cells.settings(study, cell)["training"]["learning_rate"]
        for cell in cells.every(study)
    }
    assert rates["opacus_flat"] == 0.123
    assert rates["non_private"] == study.training.learning_rate


def test_settings_are_plain_json():
    study = config.load(DEFAULT)
    for cell in cells.every(study):
        found = cells.settings(study, cell)
        assert json.loads(json.dumps(found)) == found
    assert json.loads(json.dumps(cells.execution(study))) == cells.execution(study)
    assert cells.execution(study)["physical_batch_size"] == study.training.batch_size
