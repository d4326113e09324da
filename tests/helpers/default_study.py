"""The default study, as it is or with changes."""

import copy

import yaml

from dpmedbench import config_files

DEFAULT = yaml.safe_load(config_files.CONFIG.read_text())


def changed(*changes):
    """The default study with (path, value) changes; a path is keys joined by dots."""
    values = copy.deepcopy(DEFAULT)
    for path, value in changes:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        here = values
        for key in parents:
            here = here[key]
        here[last] = copy.deepcopy(value)
    return values
