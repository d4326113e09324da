rule table:
    input:
        lambda wildcards: checked_files(wildcards.table),
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
    resources:
        mem_mb=megabytes(2000, 10),
    params:
        # of `input`, so that they are not put on record: what changes them trains anew
        settings=lambda wildcards, input: settings_of(input),
        code=code("table.py"),
    script:
        "../scripts/table.py"


rule derived_table:
    input:
        **{table: f"{RESULTS}/tables/{table}.parquet" for table in TABLES if table_files(table)},
    output:
        f"{RESULTS}/tables/{{table}}.parquet",
    log:
        f"logs/{STUDY.study}/table/{{table}}.log",
    benchmark:
        f"logs/{STUDY.study}/table/{{table}}.benchmark.tsv"
    wildcard_constraints:
        table="|".join(DERIVED),
    conda:
        "../../envs/figures.yaml"
    resources:
        mem_mb=megabytes(2000, 100),
    params:
        real=REAL,
        code=lambda wildcards: code("derived_table.py", wildcards.table),
    script:
        "../scripts/derived_table.py"
