"""The paths of a configuration: where they lead, and what is said where nothing is."""

from pathlib import Path

import pytest

from dpmedbench import config
from dpmedbench.errors import UserError


def at(path, optional=False, weights_file=None):
    """A study whose images and weights lie at some path."""
    dataset = {"loader": "aptos", "source": "path", "path": str(path), "optional": optional}
    return config.load(
        {
            "study": "s",
            "datasets": {"mine": dataset},
            "models": {"resnet18": {"weights": "imagenet", "weights_file": weights_file}},
            "mechanisms": {"plain": {"engine": "none"}},
            "grids": [{"datasets": ["mine"], "models": ["resnet18"], "mechanisms": ["plain"]}],
        }
    )


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    study = at("~/data", weights_file="~/data/none.pth")
    assert study.datasets["mine"].path == str(tmp_path / "data")
    with pytest.raises(
        UserError, match=rf"resnet18.weights_file: found '{tmp_path}/data/none.pth'"
    ):
        config.check_paths(study)


def test_a_path_with_nothing_there_is_one_sentence(tmp_path, monkeypatch):
    config.check_paths(at(tmp_path))
    config.check_paths(at(tmp_path / "none", optional=True))
    with pytest.raises(UserError, match=r"datasets.mine.path: found '.*none', where there is noth"):
        config.check_paths(at(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"'none', where there is nothing as seen from {tmp_path}"):
        config.check_paths(at("none"))


@pytest.mark.parametrize("optional", [True, False])
def test_a_path_that_may_not_be_looked_at_is_one_sentence(tmp_path, optional, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    study = at(tmp_path / "closed" / "mine", optional)
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UserError, match=r"mine.path: .* cannot be looked at \(Permission denied\)"):
        config.check_paths(study)
