"""What is drawn, from which files, with which captions, and where the report shows it."""

from snakemake.io import report as shown_in_report  # a line may not begin with report

FIGURES = figures.catalog()
# loaders of what is not generated, beside which figures show what is published of it
REAL = {name: data.loader for name, data in STUDY.datasets.items() if data.source != "phantom"}
BENCHMARK = "results/benchmarks/engines.parquet"  # of benchmarks/engines.py, where it was run


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


def other_figure_files(dataset):
    """What is drawn or written beside each of the `figure_files`."""
    suffixes = ("png", "pdf", "txt", "rst")
    return [path for suffix in suffixes for path in figure_files(dataset, suffix)]


def figure_input(dataset):
    """The tables, stores, masks and descriptions of networks that figures need."""
    datasets = [dataset] if dataset else DATASETS
    files = {need: f"{RESULTS}/tables/{need}.parquet" for need in figures.TABLES}
    files["store"] = STORE.format(dataset=datasets[0])
    files["perturbed"] = [path for name in datasets for path in perturbed_stores(name)]
    files["masks"] = cell_files("masks.h5", datasets)
    files["networks"] = network_files(datasets)
    files["benchmark"] = [BENCHMARK] if Path(BENCHMARK).exists() else []
    needs = {need for figure in figures_of(dataset) for need in figure.needs}
    return {need: files[need] for need in files if need in needs}


def figure_captions(dataset):
    """The captions of figures as far as the configuration tells them, by name."""
    shown = [cell for cell in CELLS.values() if dataset in (None, cell.dataset)]
    return captions.of_figures(STUDY, shown, figures_of(dataset))


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
