"""Which files of the cells the tables collect, and that all were trained with the settings of now."""

import functools

from snakemake.io import IOFile


def table_files(table):
    """The files of the cells that a table collects."""
    of_all = table != "predictions"
    return cell_files(TABLES[table], DATASETS if of_all else datasets_for("classification"))


def settings_of(paths):
    """What the cells that some files are of are to be trained with, by their folders."""
    top, folders = Path(RESULTS, "cells"), [Path(path).parent for path in paths]
    return {
        str(folder): cells.settings(STUDY, CELLS[str(folder.relative_to(top))])
        for folder in folders
    }


def checked_files(table):
    """The same; ends the run where Snakemake would keep cells of other settings."""
    try:
        check_settings()
    except UserError as error:  # of an input function Snakemake would show the trace
        logger.error(str(error))
        sys.exit(1)
    return table_files(table)


@functools.cache
def check_settings():
    """UserError where a cell was trained with other settings and Snakemake cannot tell.

    It tells by its records of what was made with what, and results/ may be here without. What it
    has marked as begun and not ended it makes anew.
    """
    differing = {}
    for folder, cell in CELLS.items() if workflow.is_main_process else ():
        manifest = f"{RESULTS}/cells/{folder}/manifest.json"
        known = workflow.persistence.metadata(IOFile(manifest))
        begun = workflow.persistence._filter_incomplete_keys([manifest])  # public: of jobs only
        if Path(manifest).exists() and not known and not begun:
            trained, settings = files.read_json(manifest), cells.settings(STUDY, cell)
            if why := unfinished.other_settings(trained, settings):
                differing[folder] = why
    for folder, why in differing.items():
        raise UserError(
            f"{RESULTS}/cells/{folder}: {why}; Snakemake has no record of that training and would "
            f"keep the cell ({len(differing)} like it); copy .snakemake/metadata from where it was "
            "trained, or delete the folder of each such cell to train it again"
        )
