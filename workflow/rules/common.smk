import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from dpmedbench import captions, cells, figures, pretrained, provenance
from dpmedbench.config import load
from dpmedbench.errors import UserError

try:
    STUDY = load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None
config.update(STUDY.model_dump(mode="json"))  # with every default, for the report
for name, dataset in STUDY.datasets.items():
    if dataset.path is not None and not Path(dataset.path).exists():
        raise WorkflowError(
            f"config: datasets.{name}.path: found {dataset.path!r}, where there is nothing; give "
            "the folder or archive that holds the raw data"
        )

CELLS = {cell.folder: cell for cell in cells.cells(STUDY)}
LEFT_OUT = cells.left_out(STUDY)
if not CELLS:
    raise WorkflowError(f"config: no cell can be trained: {'; '.join(LEFT_OUT)}")
config["left_out"] = LEFT_OUT  # for the report
if workflow.is_main_process:
    for reason, folders in LEFT_OUT.items():
        logger.warning(f"left out, {len(folders)} cell{'s' * (len(folders) > 1)}: {reason}")
DATASETS = list(dict.fromkeys(cell.dataset for cell in CELLS.values()))
FIGURES = figures.catalog()
RESULTS = f"results/{STUDY.study}"
NOISY = "results/data/{dataset}.{mode}.{privacy}.h5"
CELL = "{dataset}/{model}/{mechanism}/{privacy}/fold{fold}/seed{seed}"
TABLES = {
    "history": "history.parquet",
    "scores": "scores.parquet",
    "cost": "cost.json",
    "privacy": "privacy.json",
}


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


def code(script, *plugins):
    """Digest of the code of a script; a param, so that a change of it runs the step again."""
    return provenance.code_digest(SCRIPTS / script, *plugins)


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


def weights_file(wildcards):
    """The weights that the training of a cell starts from, if any."""
    model = STUDY.models[wildcards.model]
    return [model.weights_file or pretrained.PATH] if model.weights == "imagenet" else []


def perturbed_store(cell):
    """The file of the noisy images that a cell is trained on, None where they have no noise."""
    noise = cells.noise(STUDY, cell)
    return noise and NOISY.format(**noise, privacy=cell.privacy)


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


def configfiles_option():
    """The command line's --configfile, for a second Snakemake of the same study."""
    files = " ".join(shlex.quote(str(path)) for path in workflow.overwrite_configfiles)
    return f"--configfile {files}" if files else ""


def train_code(wildcards):
    """Digest of the code that trains a cell: the loop, its engine, its network, its task."""
    cell = cell_of(wildcards)
    return code(
        "train.py",
        f"mechanisms.{STUDY.mechanisms[cell.mechanism].engine}",
        f"models.{STUDY.models[cell.model].network}",
        f"tasks.{STUDY.datasets[cell.dataset].spec.task}",
    )


def predict_code(wildcards):
    """Digest of the code that predicts and scores a cell: its network, its task."""
    cell = cell_of(wildcards)
    return code(
        "predict.py",
        f"models.{STUDY.models[cell.model].network}",
        f"prediction.{STUDY.datasets[cell.dataset].spec.task}",
    )


def figure_files():
    """Every figure of every dataset that it is for, as SVG."""
    return [
        f"{RESULTS}/figures/{dataset}/{name}.svg"
        for dataset in DATASETS
        for name in STUDY.figures or FIGURES
        if FIGURES[name].task in (None, STUDY.datasets[dataset].spec.task)
        and ("perturbed" not in FIGURES[name].needs or perturbed_stores(dataset))
    ]


def figure_input(wildcards):
    """The tables, store and masks that a figure needs."""
    files = {need: f"{RESULTS}/tables/{need}.parquet" for need in TABLES}
    files["store"] = f"results/data/{wildcards.dataset}.h5"
    files["perturbed"] = perturbed_stores(wildcards.dataset)
    files["masks"] = cell_files("masks.h5", [wildcards.dataset])
    return {need: files[need] for need in FIGURES[wildcards.figure].needs}
