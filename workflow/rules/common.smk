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

CELLS = {cell.folder: cell for cell in cells.cells(STUDY)}
DATASETS = list(dict.fromkeys(cell.dataset for cell in CELLS.values()))
FIGURES = figures.catalog()
RESULTS = f"results/{STUDY.study}"
CELL = "{dataset}/{model}/{mechanism}/{privacy}/fold{fold}/seed{seed}"


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
