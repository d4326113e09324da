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


rule scans:
    input:
        masks=f"{RESULTS}/cells/{CELL}/masks.h5",
    output:
        scans=report(
            f"{RESULTS}/cells/{CELL}/scans.png",
            caption="../report/scans.rst",
            category="{dataset}",
            subcategory="Test scans",
            labels={
                "model": "{model}",
                "mechanism": "{mechanism}",
                "noise": "{privacy}",
                "fold": "{fold}",
                "seed": "{seed}",
            },
        ),
    log:
        f"logs/{STUDY.study}/scans/{CELL}.log",
    conda:
        "../../envs/figures.yaml"
    params:
        code=code("scans.py"),
    script:
        "../scripts/scans.py"
