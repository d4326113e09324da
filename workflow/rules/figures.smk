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
