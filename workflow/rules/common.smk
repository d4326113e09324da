import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import report as shown_in_report  # a line may not begin with report
from snakemake.logging import logger

# of this file, not of the Snakefile that may use it as a module
SCRIPTS = Path(workflow.current_basedir).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from dpmedbench import captions, cells, figures, pretrained, provenance, support, unfinished
from dpmedbench import report as contents
from dpmedbench.config import check_paths, load
from dpmedbench.errors import UserError

# conda or a container: a step has an environment of its own, with its engine
DEPLOYMENT = sorted(map(str, workflow.deployment_settings.deployment_method))
try:
    STUDY = load(config)
    check_paths(STUDY)
    CELLS = {cell.folder: cell for cell in cells.cells(STUDY, deployed=bool(DEPLOYMENT))}
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{STUDY.study}"
STORE = f"{RESULTS}/data/{{dataset}}.h5"
SPLITS = f"{RESULTS}/data/{{dataset}}.splits.csv"
NOISY = f"{RESULTS}/data/{{dataset}}.{{mode}}.{{privacy}}.h5"


def code(script, *plugins):
    """Digest of the code of a script; a param, so that a change of it runs the step again."""
    return provenance.code_digest(SCRIPTS / script, *plugins)


def size_mb(input):
    """The size of the input files; Snakemake's own takes milliseconds, which add up over cells."""
    return sum(os.path.getsize(path) for path in input) / 2**20


def megabytes(base, times_input):
    """Memory of a job: `base` MB and some times its input; twice that in its second attempt."""
    return lambda wildcards, input, attempt: int((base + times_input * size_mb(input)) * attempt)


def train_minutes(wildcards, input, attempt):
    """An hour and a second a pass over a megabyte, many times what a GPU takes."""
    return int(attempt * (60 + size_mb(input) * STUDY.training.epochs / 60))


def train_code(cell):
    """Digest of the code that trains a cell: the loop, its engine, its network, its task."""
    return code(
        "train.py",
        f"mechanisms.{STUDY.mechanisms[cell.mechanism].engine}",
        f"models.{STUDY.models[cell.model].network}",
        f"tasks.{STUDY.datasets[cell.dataset].spec.task}",
    )


def perturbed_store(cell):
    """The file of the noisy images that a cell is trained on, None where they have no noise."""
    noise = cells.noise(STUDY, cell)
    return noise and NOISY.format(**noise, privacy=cell.privacy)


def missing(cell):
    """Why a cell has no results, None where it has."""
    files = [path.format(dataset=cell.dataset) for path in (STORE, SPLITS)]
    return unfinished.why(
        Path(RESULTS) / "cells" / cell.folder,
        STUDY.datasets[cell.dataset].spec.task,
        cells.settings(STUDY, cell),
        train_code(cell),
        {step: Path("logs", STUDY.study, step, f"{cell.folder}.log") for step in unfinished.FILES},
        [Path(path) for path in (*files, perturbed_store(cell)) if path],
    )


if DEPLOYMENT:
    os.environ.update(PYTHONNOUSERSITE="1")  # nothing from ~/.local, in jobs neither
if "apptainer" in DEPLOYMENT and not Path("dpmedbench.sif").exists():
    raise WorkflowError(
        "dpmedbench.sif: found none in this folder, expected the image of the steps; make it from "
        "Containerfile as docs/environments.md says"
    )
LEFT_OUT = cells.left_out(STUDY, deployed=bool(DEPLOYMENT))
if not CELLS:
    raise WorkflowError(f"config: no cell can be trained: {'; '.join(LEFT_OUT)}")
MISSING = {}
if STUDY.unfinished:
    MISSING = {folder: why for folder, cell in CELLS.items() if (why := missing(cell))}
    CELLS = {folder: cell for folder, cell in CELLS.items() if folder not in MISSING}
    if not CELLS:
        raise WorkflowError(
            f"unfinished: found no finished cell of study {STUDY.study}, expected at least one; "
            f"the first: {next(iter(MISSING.items()))}"
        )
if workflow.is_main_process:
    for reason, folders in LEFT_OUT.items():
        logger.warning(f"left out, {len(folders)} cell{'s' * (len(folders) > 1)}: {reason}")
DATASETS = list(dict.fromkeys(cell.dataset for cell in CELLS.values()))
FIGURES = figures.catalog()
# in the order of the configuration: so colours are given out
PRIVATE = {name: way.private or way.local for name, way in STUDY.mechanisms.items()}
# loaders of what is not generated, beside which figures show what is published of it
REAL = {name: data.loader for name, data in STUDY.datasets.items() if data.source != "phantom"}
BENCHMARK = "results/benchmarks/engines.parquet"  # of benchmarks/engines.py, where it was run
CELL = "{dataset}/{model}/{mechanism}/{privacy}/fold{fold}/seed{seed}"
TABLES = {
    "history": "history.parquet",
    "scores": "scores.parquet",
    "cost": "cost.json",
    "privacy": "privacy.json",
    "predictions": "predictions.parquet",
}
DERIVED = ("summary", "comparisons", "claims")


wildcard_constraints:
    dataset="[A-Za-z0-9_-]+",
    model="[A-Za-z0-9_-]+",
    mechanism="[A-Za-z0-9_-]+",
    privacy="none|(sigma|eps|beta)[0-9.e+-]+",
    fold="[0-9]+",
    seed="[0-9]+",


def cell_of(wildcards):
    """The cell of a training job."""
    folder = CELL.format(**wildcards)
    if folder not in CELLS:
        raise WorkflowError(f"{folder}: no cell of study {STUDY.study}; add it to a grid")
    return CELLS[folder]


def cell_files(name, datasets=DATASETS):
    """The file `name` of every cell of some datasets."""
    return [
        f"{RESULTS}/cells/{folder}/{name}"
        for folder, cell in CELLS.items()
        if cell.dataset in datasets
    ]


def table_files(table):
    """The files of the cells that a table collects."""
    of_all = table != "predictions"
    return cell_files(TABLES[table], DATASETS if of_all else datasets_for("classification"))


def loader_of(wildcards):
    """The dataset module of a dataset."""
    return f"datasets.{STUDY.datasets[wildcards.dataset].loader}"


def with_source(source):
    """A pattern of the datasets of one source; it matches nothing where there is none."""
    names = [name for name, dataset in STUDY.datasets.items() if dataset.source == source]
    return "|".join(names) or "(?!)"


def datasets_for(task):
    """The datasets of one task."""
    return [name for name in DATASETS if STUDY.datasets[name].spec.task == task]


def pattern_for(task):
    """A pattern of the datasets of one task; it matches nothing where there is none."""
    return "|".join(datasets_for(task)) or "(?!)"


def raw_folder(wildcards):
    """Where the raw data of a dataset lie, or will."""
    dataset = STUDY.datasets[wildcards.dataset]
    return dataset.path or f"resources/{dataset.source}/{wildcards.dataset}"


def raw_digest(wildcards):
    """Digest of the files in a user's folder of raw data; a param, so that a change of one counts.

    None for what this workflow has made and for a file, which Snakemake follows itself.
    """
    path = STUDY.datasets[wildcards.dataset].path
    return path and provenance.files_digest(path)


def weights_file(wildcards):
    """The weights that the training of a cell starts from, if any."""
    model = STUDY.models[wildcards.model]
    return [model.weights_file or pretrained.PATH] if model.weights == "imagenet" else []


PERTURBED = {
    perturbed_store(cell): cells.noise(STUDY, cell) for cell in CELLS.values() if cell.beta
}


def noise_of(wildcards):
    """What is put on the images of a file of noisy images."""
    return PERTURBED[NOISY.format(**wildcards)]


def perturbed_stores(dataset):
    """Every file of noisy images of a dataset."""
    return [path for path, noise in PERTURBED.items() if noise["dataset"] == dataset]


def perturbed_images(wildcards):
    """The noisy images that the training of a cell needs, if any."""
    return perturbed_store(cell_of(wildcards)) or []


def config_options(*values):
    """Of the command line --configfile, --config with more `values` and --sdm, to give again."""
    given = {
        "--configfile": workflow.overwrite_configfiles,
        "--config": [*workflow.config_settings.config_args, *values],
        "--sdm": DEPLOYMENT,
    }
    return " ".join(
        f"{option} {' '.join(shlex.quote(str(value)) for value in values)}"
        for option, values in given.items()
        if values
    )


def predict_code(wildcards):
    """Digest of the code that predicts and scores a cell: its network, its task."""
    cell = cell_of(wildcards)
    return code(
        "predict.py",
        f"models.{STUDY.models[cell.model].network}",
        f"prediction.{STUDY.datasets[cell.dataset].spec.task}",
    )


def cell_logs(wildcards):
    """The logs of a cell that there are, with their times, so that newer ones are packed again."""
    folder = CELL.format(**wildcards)
    logs = [Path("logs", STUDY.study, step, f"{folder}.log") for step in unfinished.FILES]
    return {str(log): log.stat().st_mtime_ns for log in logs if log.exists()}


def figures_of(dataset):
    """The figures of a dataset, or (None) those over the whole study."""
    chosen = [FIGURES[name] for name in (FIGURES if STUDY.figures is None else STUDY.figures)]
    tasks = [STUDY.datasets[name].spec.task for name in ([dataset] if dataset else DATASETS)]
    return [
        figure
        for figure in chosen
        if figure.scope == ("dataset" if dataset else "study")
        and figure.task in (None, *tasks)
        and ("perturbed" not in figure.needs or perturbed_stores(dataset))
    ]


def figure_files(dataset, suffix="svg"):
    """The files of the figures of a dataset or (None) of the study."""
    folder = Path(RESULTS, "figures", dataset or "")
    return [f"{folder}/{figure.name}.{suffix}" for figure in figures_of(dataset)]


def figure_input(dataset):
    """The tables, stores, masks and descriptions of networks that figures need."""
    datasets = [dataset] if dataset else DATASETS
    files = {need: f"{RESULTS}/tables/{need}.parquet" for need in figures.TABLES}
    files["store"] = STORE.format(dataset=datasets[0])
    files["perturbed"] = [path for name in datasets for path in perturbed_stores(name)]
    files["masks"] = cell_files("masks.h5", datasets)
    files["networks"] = network_files(datasets)
    files["benchmark"] = BENCHMARK if Path(BENCHMARK).exists() else []
    needs = {need for figure in figures_of(dataset) for need in figure.needs}
    return {need: files[need] for need in files if need in needs}


def figure_captions(dataset):
    """The captions of figures as far as the configuration tells them, by name."""
    shown = [cell for cell in CELLS.values() if dataset in (None, cell.dataset)]
    facts = captions.facts(STUDY, shown)
    return {figure.name: figure.caption_with(facts) for figure in figures_of(dataset)}


def reported(dataset):
    """The figures of a dataset or (None) of the study, as the report shows them."""
    return [
        shown_in_report(
            path,
            caption=Path(path).with_suffix(".rst").absolute(),
            category=figure_category(figure),
            subcategory=dataset or "All datasets",
            labels=figure_labels(figure),
        )
        for path, figure in zip(figure_files(dataset), figures_of(dataset))
    ]


def figure_category(figure):
    """The heading of a figure in the report: the published study it belongs to."""
    published = figure.published_in(STUDY.study)
    return contents.heading(figures.STUDIES.get(published, figures.BEYOND), STUDY.study)


def figure_labels(figure):
    """What the report says beside a figure: one label, numbered as it sorts by letters.

    With more labels it makes a switch of one that halves a folder, and shows nothing where the
    halves do not match.
    """
    study = figure.published_in(STUDY.study)
    folder = [name for name in FIGURES if FIGURES[name].published_in(STUDY.study) == study]
    published = f", {figure.published[study]}" if study else ""
    return {"figure": f"{folder.index(figure.name) + 1:02}  {figure.title}{published}"}


def network_files(datasets):
    """The descriptions of the networks that are trained on some datasets."""
    pairs = dict.fromkeys((cell.dataset, cell.model) for cell in CELLS.values())
    return [
        f"{RESULTS}/networks/{dataset}/{model}.json"
        for dataset, model in pairs
        if dataset in datasets
    ]
