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


rule figure:
    input:
        unpack(figure_input),
    output:
        svg=report(
            f"{RESULTS}/figures/{{dataset}}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="{dataset}",
            subcategory=lambda wildcards: FIGURES[wildcards.figure].category,
            labels=lambda wildcards: {"figure": FIGURES[wildcards.figure].title},
        ),
        png=f"{RESULTS}/figures/{{dataset}}/{{figure}}.png",
    log:
        f"logs/{STUDY.study}/figure/{{dataset}}/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        "../../envs/figures.yaml"
    params:
        caption=lambda wildcards: FIGURES[wildcards.figure].caption_with(
            captions.facts(STUDY, wildcards.dataset)
        ),
        code=lambda wildcards: code("figure.py", f"figures.{wildcards.figure}"),
    script:
        "../scripts/figure.py"
