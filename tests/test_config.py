"""The configuration: what is refused and with which words, and the studies."""

import json
import math

import jsonschema
import pytest
import yaml
from default_study import DEFAULT, changed

from dpmedbench import cells, config, config_files, datasets, mechanisms, models, results
from dpmedbench.errors import UserError

STUDIES = sorted((config_files.ROOT / "config" / "studies").glob("*.yaml"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            [("epochs", 3)],
            r"config: found the key epochs, which there is not; allowed are study, title",
        ),
        (
            [("training.epoch", 3)],
            r"training: found the key epoch, which there is not, did you mean epochs\? allowed",
        ),
        ([("study", 2024)], "study: found 2024, expected a text; put it in quotes"),
        (
            [("study", "my study")],
            "study: found 'my study', expected letters, digits, - and _, the",
        ),
        ([("grids.0.seeds", 3)], r"grids.0.seeds: found 3, expected a list, in \[ \]"),
        ([("datasets.phantom_duke.image_size", 64)], "image_size: found 64, expected a list"),
        ([("training", None)], "training: found None, expected keys with values; leave it out"),
        ([("datasets", ["duke"])], r"datasets: found \['duke'\], expected keys with values"),
        ([("training.epochs", 0)], r"training.epochs: found 0, input should be greater than or eq"),
        (
            [("training.epochs", "ten")],
            r"training.epochs: found 'ten', input should be a valid int",
        ),
        (
            [("training.precision", "float16")],
            r"'float16', input should be 'float32' or 'bfloat16'",
        ),
        (
            [("privacy.delta", 0.05)],
            r"privacy.delta: found 0.05, but phantom_duke has 25 training records; "
            r"allowed is less than 1/25",
        ),
        (
            [("training.batch_size", 26)],
            r"training.batch_size: found 26, but phantom_duke has 25 training records; "
            r"allowed is 1 to 25",
        ),
        (
            [("grids.0.folds", [0, 1])],
            r"grids\[0\].folds: found 1, but datasets.phantom_duke.split.folds is 1; "
            r"allowed are 0 to 0",
        ),
        (
            [("grids.0.target_epsilon", [8])],
            r"grids\[0\]: found both noise_multiplier and target_epsilon",
        ),
        ([("grids.0.noise_multiplier", [])], r"mechanism opacus_flat needs noise_multiplier or"),
        (
            [
                ("grids.0.noise_multiplier", []),
                ("grids.0.target_epsilon", [8]),
                ("privacy.accountant", "gdp"),
            ],
            r"grids\[0\].target_epsilon: found privacy.accountant gdp, an approximation",
        ),
        ([("grids.0.noise_multiplier", [0])], r"noise_multiplier.0: found 0, input should be gre"),
        ([("grids.0.models", ["resnet"])], r"grids\[0\].models: found 'resnet', allowed are"),
        (
            [("mechanisms.opacus_flat.clipping_style", "none")],
            r"engine opacus in mode hooks cannot do clipping abadi \+ clipping_style none; "
            r"allowed are abadi \+ flat, abadi \+ per_layer",
        ),
        (
            [("mechanisms.non_private.clipping", "abadi")],
            r"engine none in mode autograd cannot do clipping abadi \+ .*allowed are none \+ none",
        ),
        ([("mechanisms.opacus_flat.engine", "tf")], r"engine is 'tf', allowed are \('book"),
        (
            [("datasets.phantom_duke.loader", "dukes")],
            r"loader is 'dukes', allowed are \(.*'duke',",
        ),
        (
            [("mechanisms.opacus_flat.mode", "fast")],
            r"mode is 'fast', allowed for engine opacus are \['hooks', 'functorch', 'ew', 'ghost'",
        ),
        (
            [
                ("mechanisms.opacus_flat.mode", "ghost"),
                ("mechanisms.opacus_flat.sparsification", {}),
            ],
            r"mode ghost has no per-sample gradients to sparsify; allowed modes are \['hooks'",
        ),
        (
            [
                (
                    "mechanisms.opacus_flat.noise_schedule",
                    {"kind": "step", "options": {"gamma": 0.5}},
                )
            ],
            r"kind step has options \['gamma'\], expected exactly \['every', 'gamma'\]",
        ),
        (
            [
                (
                    "mechanisms.non_private.noise_schedule",
                    {"kind": "linear", "options": {"final": 2}},
                )
            ],
            r"noise_schedule needs a private engine, found none",
        ),
        (
            [("mechanisms.opacus_flat.mode", "ghost"), ("training.precision", "bfloat16")],
            r"training.precision: mechanism opacus_flat: engine opacus in mode ghost does not keep",
        ),
        (
            [("privacy.sampling", "shuffled")],
            r"sampling shuffled with neighbouring add_remove has no valid accounting",
        ),
        (
            [("privacy.sampling", "fixed_size"), ("privacy.neighbouring", "replace_one")],
            r"accountant prv has no bound for sampling fixed_size; use rdp",
        ),
        (
            [("datasets.phantom_duke.source", "path")],
            r"found source path and no path; a path needs",
        ),
        ([("datasets.phantom_duke.split.ratios", [0.5, 0.2, 0.2])], r"ratios sum to 0.9"),
        ([("datasets.phantom_duke.split.method", "kfold")], r"kfold needs folds >= 3, found 1"),
        (
            [("datasets.phantom_duke.split.method", "lists")],
            r"split: found method lists without lists; method lists needs them",
        ),
        ([("models.unet.num_groups", 3)], r"num_groups 3 does not divide features \[16, 32, 64\]"),
        ([("figures", ["pie"])], r"figures: found \['pie'\], allowed are"),
        (
            [("training.epochs", True)],
            r"training.epochs: found True \(yes, on, .*expected a number",
        ),
        ([("grids.0.seeds", [0, False])], r"grids.0.seeds: found False \(yes, .*expected a number"),
        (
            [
                (
                    "mechanisms.opacus_flat.noise_schedule",
                    {"kind": "linear", "options": {"final": True}},
                )
            ],
            r"options: found True \(yes, on, true, ... in YAML\), expected a number",
        ),
        ([("training.learning_rate", math.inf)], r"found inf, input should be a finite number"),
        ([("grids.0.noise_multiplier", [math.inf])], r"found inf, input should be a finite number"),
        ([("training.weight_decay", math.nan)], r"found nan, input should be "),
        (
            [("datasets.phantom_duke.source", "path"), ("datasets.phantom_duke.path", "")],
            r"phantom_duke.path: found '', string should have at least 1 character",
        ),
        (
            [("datasets.phantom_duke.source", "path"), ("datasets.phantom_duke.path", "/a/{b}")],
            r"phantom_duke.path: found '/a/\{b\}', where Snakemake takes \{ for a wildcard; rename",
        ),
        ([("study", "a/b")], r"study: found 'a/b'"),
        (
            [(f"mechanisms.{results.CONSTANT}", {"engine": "none"})],
            r"mechanisms: found 'constant', which the tables call the constant predictor; name",
        ),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        config.load(changed(*changes))


def test_the_default_study_has_a_cell_of_every_dataset_network_and_kind_of_engine():
    study = config.load(DEFAULT)
    found = cells.every(study)
    assert cells.left_out(study) == {}
    loaders = {study.datasets[cell.dataset].loader for cell in found}
    assert loaders == set(datasets.names()) - {"custom"}
    assert {study.models[cell.model].network for cell in found} == set(models.names())
    engines = {study.mechanisms[cell.mechanism].engine for cell in found}
    assert engines == set(mechanisms.names()) - {"fastdp"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_are_valid(path):
    values = yaml.safe_load(path.read_text())
    assert config.load(values).study == path.stem
    jsonschema.validate(values, json.loads(config_files.SCHEMA.read_text()))


def test_the_bookkeeping_study_has_the_published_hyper_parameters():
    study = config.load(yaml.safe_load((STUDIES[0].parent / "bookkeeping.yaml").read_text()))
    training = study.training
    assert (training.batch_size, training.learning_rate, training.epochs) == (10, 5e-4, 100)
    assert (training.weight_decay, study.privacy.delta) == (1e-4, 1e-5)
    assert study.datasets["duke"].split.ratios == (0.8, 0.1, 0.1)
    assert study.datasets["duke"].nominal_training_records == 88
    found = {cell.folder for cell in cells.every(study)}
    assert "duke/unet/non_private/none/fold0/seed0" in found
    for sigma in ("0.3", "0.5", "0.7", "1"):
        assert f"duke/unet/opacus_per_layer/sigma{sigma}/fold0/seed0" in found


def test_the_clipping_study_clips_each_tensor_as_published():
    study = config.load(yaml.safe_load((STUDIES[0].parent / "clipping.yaml").read_text()))
    for way in filter(lambda way: way.private, study.mechanisms.values()):
        assert (way.clipping_style, way.layer_thresholds) == ("per_layer", "same")
        assert way.max_grad_norm == 1.0
    assert len(cells.every(study)) == 2 * (1 + 2 * 4)


def test_the_learning_curves_differ_from_their_study_in_length_and_cells_alone():
    paths = {path.stem: path for path in STUDIES}
    whole, curves = (
        config.load(yaml.safe_load(paths[name].read_text()))
        for name in ("local_dp", "local_dp_curves")
    )
    assert curves.training == whole.training.model_copy(update={"epochs": 120})
    assert curves.models == whole.models
    for section in ("datasets", "mechanisms"):
        shared = getattr(curves, section)
        assert shared == {name: getattr(whole, section)[name] for name in shared}
    noises = [
        f"{way}/beta{beta}" for way in ("local_laplace", "local_scalar") for beta in (1, 2, 4)
    ]
    assert {cell.folder for cell in cells.every(curves)} == {
        f"chest_xray/resnet18/{setting}/fold0/seed0" for setting in ("non_private/none", *noises)
    }


def test_a_key_stands_for_its_loader_and_network():
    study = config.load(
        changed(
            ("datasets", {"duke": {"split": {"ratios": [0.6, 0.2, 0.2]}}}),
            ("models", {"unet": None}),
            ("grids", [DEFAULT["grids"][0] | {"datasets": ["duke"]}]),
        )
    )
    assert study.datasets["duke"].loader == "duke"
    assert study.models["unet"].network == "unet"


def test_the_registry_names_what_engines_can_do():
    for engine in mechanisms.names():
        able = mechanisms.capabilities(engine)
        for name, mode in able.modes.items():
            for clipping, style in mode.combinations:
                mechanisms.check(engine, name, clipping, style, mode.sparsification)
            assert able.private == (("none", "none") not in mode.combinations)
