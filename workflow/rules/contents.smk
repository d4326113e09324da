"""What the report and the export for a paper are made of."""

TEMPLATES = SCRIPTS.parent / "report"
FINDINGS_FILE = f"{RESULTS}/tables/findings.json"
# the study whose report is made, of several that an outer workflow may have as modules
REPORTED = "DPMEDBENCH_REPORTED"
if os.environ.get(REPORTED, STUDY.study) == STUDY.study:
    # for workflow/report/workflow.rst, which sees the configuration of the outermost workflow only
    workflow.modifier_stack[0].globals["config"]["front"] = captions.front_page(
        STUDY,
        list(CELLS.values()),
        LEFT_OUT,
        MISSING,
        files.read_json(FINDINGS_FILE) if Path(FINDINGS_FILE).exists() else {},
    )


def page_files(suffix):
    """Every page of tables, as html, tex or csv."""
    return [f"{RESULTS}/pages/{name}.{suffix}" for name in contents.PAGES]


def scans_files():
    """The test scans of the first run of each setting: all would make the report a big file."""
    first = {}
    for path in cell_files("scans.png", datasets_for("segmentation")):
        first.setdefault(Path(path).parents[2], path)
    return list(first.values())


def drawn():
    """The figures for a paper by path: title, dataset, published study and name there."""
    found = {}
    for dataset in [*DATASETS, None]:
        for path, figure in zip(figure_files(dataset, "pdf"), figures_of(dataset)):
            study = figure.published_in(STUDY.study)
            found[path] = {
                "title": figure.title,
                "dataset": dataset or "",
                "study": study or "",
                "label": figure.published.get(study, ""),
            }
    return found
