SHARED = {
    "models": cell_files("model.safetensors"),
    "privacy": cell_files("privacy.json"),
    "manifests": cell_files("manifest.json"),
    "summary": f"{RESULTS}/tables/summary.parquet",
}


# What may leave the place of the patients.
rule share:
    input:
        **SHARED,
    output:
        f"{RESULTS}/share.zip",
    log:
        f"logs/{STUDY.study}/share.log",
    conda:
        "../../envs/figures.yaml"
    params:
        folders={folder: f"{RESULTS}/cells/{folder}" for folder in CELLS},
        code=code("share.py"),
    script:
        "../scripts/share.py"


# The same with the scores of each test patient, who are numbered.
use rule share as share_with_patients with:
    input:
        **SHARED,
        scores=f"{RESULTS}/tables/scores.parquet",
    output:
        f"{RESULTS}/share_with_patients.zip",
    log:
        f"logs/{STUDY.study}/share_with_patients.log",


# One cell, failed or not, for a bug report; it runs nothing else.
rule bug_report:
    output:
        f"{RESULTS}/bug_reports/{CELL}.zip",
    log:
        f"logs/{STUDY.study}/bug_report/{CELL}.log",
    localrule: True
    conda:
        "../../envs/train.yaml"
    params:
        settings=lambda wildcards: cells.settings(STUDY, cell_of(wildcards)),
        cell=f"{RESULTS}/cells/{CELL}",
        data=f"{RESULTS}/data/{{dataset}}",
        # as inputs they would train the cell
        logs=cell_logs,
        code=code("bug_report.py"),
    script:
        "../scripts/bug_report.py"
