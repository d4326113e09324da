import importlib.util
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# of this file, not of the Snakefile that may use it as a module
SCRIPTS = Path(workflow.current_basedir).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from dpmedbench import captions, cells, figures, files, pretrained, provenance, support, unfinished
from dpmedbench import report as contents
from dpmedbench.config import check_paths, load
from dpmedbench.errors import UserError

# Snakemake binds what stands there into a container, elsewhere, and jobs would find it there first
sys.path.remove(str(SCRIPTS))
# conda or a container: a step has an environment of its own, with its engine
DEPLOYMENT = sorted(map(str, workflow.deployment_settings.deployment_method))
try:
    STUDY = load(config)
    if not STUDY.unfinished:  # then nothing is read that the study did not make
        check_paths(STUDY)
    EVERY = {cell.folder: cell for cell in cells.every(STUDY)}
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{STUDY.study}"
STORE = f"{RESULTS}/data/{{dataset}}.h5"
SPLITS = f"{RESULTS}/data/{{dataset}}.splits.csv"
SPLITS_MADE = f"{RESULTS}/data/{{dataset}}.splits.made"
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


def train_minutes(wildcards, input):
    """An hour and a second a pass over a megabyte of images, many times what a GPU takes.

    The noisy copy of a local cell has the same images. No more in another attempt, which goes on
    from a checkpoint: a job that asks for more than a partition's longest would never start.
    """
    return int(60 + size_mb([input.data]) * STUDY.training.epochs / 60)


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
    return unfinished.why(
        Path(RESULTS) / "cells" / cell.folder,
        STUDY.datasets[cell.dataset].spec.task,
        cells.settings(STUDY, cell),
        train_code(cell),
        {step: Path("logs", STUDY.study, step, f"{cell.folder}.log") for step in unfinished.FILES},
        [
            Path(path)
            for path in (STORE.format(dataset=cell.dataset), perturbed_store(cell))
            if path
        ],
        Path(SPLITS.format(dataset=cell.dataset)),
    )


if DEPLOYMENT:
    os.environ.update(PYTHONNOUSERSITE="1")  # nothing from ~/.local, in jobs neither
if "apptainer" in DEPLOYMENT and not Path("dpmedbench.sif").exists():
    raise WorkflowError(
        "dpmedbench.sif: found none in this folder, expected the image of the steps; make it from "
        "Containerfile as docs/environments.md says"
    )
if workflow.is_main_process and not (DEPLOYMENT or STUDY.unfinished):
    if importlib.util.find_spec("torch") is None:  # a job removes results before it finds out
        raise WorkflowError(
            "torch: found none in the environment of Snakemake, which trains the cells without "
            "--sdm; give --sdm conda or --sdm apptainer as in the run before, or install the "
            "packages as docs/environments.md says"
        )
MISSING = {}
if STUDY.unfinished:
    MISSING = {folder: why for folder, cell in EVERY.items() if (why := missing(cell))}
# of an unfinished study what has results counts, be its raw data and its engine here or not
LACKING = [EVERY[folder] for folder in MISSING] if STUDY.unfinished else EVERY.values()
LEFT_OUT = cells.left_out(STUDY, bool(DEPLOYMENT), LACKING)
NAMED = {folder for folders in LEFT_OUT.values() for folder in folders}
MISSING = {folder: why for folder, why in MISSING.items() if folder not in NAMED}
CELLS = {
    folder: cell for folder, cell in EVERY.items() if folder not in NAMED and folder not in MISSING
}
if MISSING and not CELLS:
    raise WorkflowError(
        f"unfinished: found no finished cell of study {STUDY.study}, expected at least one; "
        f"the first: {next(iter(MISSING.items()))}"
    )
if not CELLS:
    raise WorkflowError(f"config: no cell can be trained: {'; '.join(LEFT_OUT)}")
if workflow.is_main_process:
    for reason, folders in LEFT_OUT.items():
        logger.warning(f"left out, {len(folders)} cell{'s' * (len(folders) > 1)}: {reason}")
DATASETS = list(dict.fromkeys(cell.dataset for cell in CELLS.values()))
# in the order of the configuration: so colours are given out
PRIVATE = {name: way.private or way.local for name, way in STUDY.mechanisms.items()}
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
    dataset="|".join(STUDY.datasets),
    model="|".join(STUDY.models),
    mechanism="|".join(STUDY.mechanisms),
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


def on_the_way():
    """What is made between the raw data and the report, and beside it.

    Snakemake looks for missing files among the inputs of its targets alone, and takes a job that
    failed for one that has run with its new settings; without these as inputs of the first rule it
    would not try it again, nor make anew what a person deleted.
    """
    made = [
        path for names in unfinished.FILES.values() for name in names for path in cell_files(name)
    ]
    for task, name in unfinished.PREDICTIONS.items():
        made += cell_files(name, datasets_for(task))
    made += [path for name in [*DATASETS, None] for path in other_figure_files(name)]
    made += page_files("csv") + page_files("tex")
    made += [f"{RESULTS}/tables/{table}.parquet" for table in TABLES if table_files(table)]
    made += [f"{RESULTS}/tables/{table}.parquet" for table in DERIVED]
    if not STUDY.unfinished:
        of_datasets = (STORE, SPLITS, SPLITS_MADE)
        made += [path.format(dataset=name) for name in DATASETS for path in of_datasets]
        made += PERTURBED
    return made


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
    if dataset.source == "path":  # the time of a folder changes with any file: see raw_digest
        return ancient(dataset.path) if Path(dataset.path).is_dir() else dataset.path
    if dataset.source == "phantom":
        return f"resources/phantom/{STUDY.study}/{wildcards.dataset}"
    return f"resources/download/{wildcards.dataset}"


def raw_digest(wildcards):
    """Digest of a user's raw data, an archive or the files of a folder; a param: a change counts.

    That of a manifest is the one it lies in. None for what this workflow has made.
    """
    dataset = STUDY.datasets[wildcards.dataset]
    if dataset.path and dataset.loader == "custom" and Path(dataset.path).is_file():
        return provenance.files_digest(Path(dataset.path).parent)
    return dataset.path and provenance.files_digest(dataset.path)


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
    return {
        "--configfile": workflow.overwrite_configfiles,
        "--config": [*workflow.config_settings.config_args, *values],
        "--sdm": DEPLOYMENT,
    }


def place_options():
    """Of the command line --snakefile and --directory, to give again from anywhere."""
    here, snakefile = Path.cwd(), Path(workflow.main_snakefile)
    if workflow.overwrite_workdir:
        return {"--snakefile": [snakefile], "--directory": [here]}
    return {} if snakefile == here / "Snakefile" else {"--snakefile": [snakefile]}


def command_line(given):
    """Options with their values as text, those that have some."""
    return " ".join(
        f"{option} {' '.join(shlex.quote(str(value)) for value in values)}"
        for option, values in given.items()
        if values
    )


def failed_logs():
    """The logs of each job that failed; on a cluster a job may stand for a group of them."""
    return [
        [Path(log) for part in (job.jobs if job.is_group() else [job]) for log in part.log]
        for job in workflow.scheduler.failed
    ]


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
