# What a report shows; `snakemake results` makes it without the report itself.
rule results:
    input:
        figure_files(),
        cell_files("scans.png", datasets_for("segmentation")),


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
    params:
        # the captions read the configuration
        config=STUDY.model_dump(mode="json"),
        snakefile=workflow.main_snakefile,
        configfiles=configfiles_option(),
    shell:
        # Snakemake's own report, made by a second Snakemake while this one holds the lock; it may
        # not be on the PATH of who called this one by its full name
        f'PATH="$PATH:{Path(sys.executable).parent}" '
        "snakemake --snakefile {params.snakefile:q} {params.configfiles} --workflow-profile none"
        " --nolock --report {output:q} results >{log:q} 2>&1"
