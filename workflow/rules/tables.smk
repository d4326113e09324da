rule table:
    input:
        lambda wildcards: cell_files(TABLES[wildcards.table]),
    output:
        f"{RESULTS}/tables/{{table}}.parquet",
    log:
        f"logs/{STUDY.study}/table/{{table}}.log",
    benchmark:
        f"logs/{STUDY.study}/table/{{table}}.benchmark.tsv"
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../../envs/figures.yaml"
    params:
        folders=[f"{RESULTS}/cells/{folder}" for folder in CELLS],
        code=code("table.py"),
    script:
        "../scripts/table.py"
