import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from dpmedbench import captions, cells, datasets, figures, provenance
from dpmedbench.config import load
from dpmedbench.errors import UserError

try:
    STUDY = load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None
config.update(STUDY.model_dump(mode="json"))  # with every default, for the report
for name, dataset in STUDY.datasets.items():
    if dataset.path is not None and not Path(dataset.path).is_dir():
        raise WorkflowError(
            f"config: datasets.{name}.path: found {dataset.path!r}, which is no folder; give the "
            "folder that holds the raw data"
        )

CELLS = {cell.folder: cell for cell in cells.cells(STUDY)}
DATASETS = list(dict.fromkeys(cell.dataset for cell in CELLS.values()))
FIGURES = figures.catalog()
RESULTS = f"results/{STUDY.study}"
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
    privacy="none|(sigma|eps)[0-9.e+-]+",
    fold="[0-9]+",
    seed="[0-9]+",


def cell_of(wildcards):
    """The cell of a training job."""
    folder = CELL.format(**wildcards)
    if folder not in CELLS:
        raise WorkflowError(f"{folder}: no cell of study {STUDY.study}; add it to a grid")
    return CELLS[folder]


def cell_files(name, dataset=None):
    """The file `name` of every cell (of one dataset)."""
    return [
        f"{RESULTS}/cells/{folder}/{name}"
        for folder, cell in CELLS.items()
        if dataset in (None, cell.dataset)
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


def raw_folder(wildcards):
    """Where the raw data of a dataset lie, or will."""
    dataset = STUDY.datasets[wildcards.dataset]
    return dataset.path or f"resources/{dataset.source}/{wildcards.dataset}"


def configfiles_option():
    """The command line's --configfile, for a second Snakemake of the same study."""
    files = " ".join(shlex.quote(str(path)) for path in workflow.overwrite_configfiles)
    return f"--configfile {files}" if files else ""


def train_code(wildcards):
    """Digest of the code that trains a cell: the loop, its engine, its network, its task."""
    cell = cell_of(wildcards)
    task = datasets.load(STUDY.datasets[cell.dataset].loader).SPEC.task
    return code(
        "train.py",
        f"mechanisms.{STUDY.mechanisms[cell.mechanism].engine}",
        f"models.{STUDY.models[cell.model].network}",
        f"tasks.{task}",
    )


def figure_files():
    """Every figure of every dataset, as SVG."""
    names = STUDY.figures or list(FIGURES)
    return [f"{RESULTS}/figures/{dataset}/{name}.svg" for dataset in DATASETS for name in names]


def figure_input(wildcards):
    """The tables, store and masks that a figure needs."""
    files = {need: f"{RESULTS}/tables/{need}.parquet" for need in TABLES}
    files["store"] = f"results/data/{wildcards.dataset}.h5"
    files["masks"] = cell_files("masks.h5", wildcards.dataset)
    return {need: files[need] for need in FIGURES[wildcards.figure].needs}
