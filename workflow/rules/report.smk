# with conda that of envs/report.yaml; else this one, whichever is first on the PATH
SNAKEMAKE = "snakemake" if "conda" in DEPLOYMENT else f"{shlex.quote(sys.executable)} -m snakemake"


rule page:
    input:
        unpack(
            lambda wildcards: {
                need: f"{RESULTS}/tables/{need}.parquet"
                for need in contents.PAGES[wildcards.page].needs
                if need in figures.TABLES
            }
        ),
    output:
        html=report(
            f"{RESULTS}/pages/{{page}}.html",
            caption="../report/page.rst",
            category=contents.heading(contents.FINDINGS, STUDY.study),
            labels=lambda wildcards: {"table": contents.label(wildcards.page)},
        ),
        csv=f"{RESULTS}/pages/{{page}}.csv",
        tex=f"{RESULTS}/pages/{{page}}.tex",
    log:
        f"logs/{STUDY.study}/page/{{page}}.log",
    wildcard_constraints:
        page="|".join(contents.PAGES),
    conda:
        "../../envs/figures.yaml"
    params:
        caption=lambda wildcards: contents.PAGES[wildcards.page].caption,
        support=support.rows(),
        code=code("page.py"),
    script:
        "../scripts/page.py"


rule findings:
    input:
        **{
            table: f"{RESULTS}/tables/{table}.parquet"
            for table in ("summary", "comparisons", "claims", "privacy")
        },
        manifests=cell_files("manifest.json"),
    output:
        FINDINGS_FILE,
    log:
        f"logs/{STUDY.study}/findings.log",
    conda:
        "../../envs/figures.yaml"
    params:
        code=code("findings.py"),
    script:
        "../scripts/findings.py"


# What a report shows; `snakemake results` makes it without the report itself.
rule results:
    input:
        [path for dataset in [*DATASETS, None] for path in figure_files(dataset)],
        scans_files(),
        page_files("html"),
        FINDINGS_FILE,


rule paper:
    input:
        figures=list(drawn()),
        pages=page_files("tex") + page_files("csv"),
    output:
        directory(f"{RESULTS}/paper"),
    log:
        f"logs/{STUDY.study}/paper.log",
    conda:
        "../../envs/figures.yaml"
    params:
        # by a function: in a text Snakemake takes {} for a wildcard
        title=lambda wildcards: STUDY.title or STUDY.study,
        figures=drawn(),
        code=code("paper.py"),
    script:
        "../scripts/paper.py"


rule report:
    input:
        rules.results.input,
    output:
        f"{RESULTS}/report.html",
    log:
        f"logs/{STUDY.study}/report.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    container:
        None
    params:
        # what captions and front page are made of
        config=STUDY.model_dump(mode="json"),
        missing=MISSING,
        templates=[files.sha256(path) for path in sorted(TEMPLATES.iterdir())],
        front=code("dpmedbench/captions.py"),  # what fills in that of the front page
        snakefile=workflow.main_snakefile,
        options=lambda wildcards: command_line(config_options()),  # with the title, as in rule paper
        # in a module it may have another name
        target=lambda wildcards: rules.results.rule.name,
        stylesheet=TEMPLATES / "report.css",
    shell:
        # Snakemake's own report, made by a second Snakemake while this one holds the lock
        f"{REPORTED}={STUDY.study} {SNAKEMAKE} --profile none --workflow-profile none "
        "--snakefile {params.snakefile:q} {params.options}"
        " --nolock --report {output:q} --report-stylesheet {params.stylesheet:q}"
        " {params.target} >{log:q} 2>&1"
