"""The files that are generated from the configuration's models."""

import pytest
import yaml
from default_study import DEFAULT

from dpmedbench import config, config_files, generated


def test_generated_files_are_up_to_date():
    for path, text in config_files.files().items():
        assert path.read_text() == text, f"{path.name} drifted; run `make config`"


def test_comments_lose_nothing():
    """The commented file says the same as the study it was made from."""
    study = config.load(DEFAULT)
    assert config.load(yaml.safe_load(config_files.commented(study))) == study


def test_every_key_is_explained_in_file_and_table():
    text, table = config_files.CONFIG.read_text(), config_files.README.read_text()
    for key, field in config_files._walk(config.Study, ""):
        assert field.description, key
        assert f"`{key}`" in table
        if ".lists." not in key:
            assert field.description.split()[0] in text


def test_a_misspelt_option_writes_nothing(tmp_path, capsys):
    path = tmp_path / "made.txt"
    with pytest.raises(SystemExit):
        generated.main(lambda: {path: "new"}, tmp_path, "config", ["--chek"])
    assert "--chek" in capsys.readouterr().err
    assert generated.main(lambda: {path: "new"}, tmp_path, "config", ["--check"]) == 1
    assert not path.exists()
    assert generated.main(lambda: {path: "new"}, tmp_path, "config", []) == 0
    assert path.read_text() == "new"


@pytest.mark.parametrize("value", [1e-5, 0.3, 1e-4, 5e-324, 100, 0.0, "a: b", None, [1, 2.5]])
def test_scalars_survive_yaml(value):
    assert yaml.safe_load(config_files._scalar(value)) == value
