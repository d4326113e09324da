# One job draws all figures of a dataset, and one those over all: starting takes longer than drawing.
for DRAWN in [*DATASETS, None]:

    rule:
        name:
            f"figures_{DRAWN}" if DRAWN else "figures"
        input:
            **figure_input(DRAWN),
        output:
            figures=reported(DRAWN),
            others=other_figure_files(DRAWN),
        log:
            f"logs/{STUDY.study}/figures/{DRAWN}.log"
            if DRAWN
            else f"logs/{STUDY.study}/figures.log",
        conda:
            "../../envs/figures.yaml"
        threads: 4
        params:
            dataset=DRAWN,
            captions=figure_captions(DRAWN),
            given={
                "left_out": LEFT_OUT,
                "missing": MISSING,
                "support": support.rows(),
                "real": REAL,
            },
            mechanisms=PRIVATE,
            code=code("figures.py", *(f"figures.{figure.name}" for figure in figures_of(DRAWN))),
        script:
            "../scripts/figures.py"


rule network:
    input:
        STORE,
    output:
        f"{RESULTS}/networks/{{dataset}}/{{model}}.json",
    log:
        f"logs/{STUDY.study}/network/{{dataset}}/{{model}}.log",
    conda:
        "../../envs/train.yaml"
    params:
        model=lambda wildcards: STUDY.models[wildcards.model].model_dump(
            mode="json", exclude={"weights", "weights_file"}
        ),
        code=lambda wildcards: code("network.py", f"models.{STUDY.models[wildcards.model].network}"),
    script:
        "../scripts/network.py"


rule scans:
    input:
        masks=f"{RESULTS}/cells/{CELL}/masks.h5",
    output:
        scans=report(
            f"{RESULTS}/cells/{CELL}/scans.png",
            caption="../report/scans.rst",
            category=contents.heading(contents.SCANS, STUDY.study),
            subcategory="{dataset}",
            labels={"scans": "{model}, {mechanism}, {privacy}, fold {fold}, seed {seed}"},
        ),
    log:
        f"logs/{STUDY.study}/scans/{CELL}.log",
    conda:
        "../../envs/figures.yaml"
    params:
        code=code("scans.py"),
    script:
        "../scripts/scans.py"
