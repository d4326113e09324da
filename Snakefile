from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    CONFIG = Path("config/config.yaml")

    # in another folder, without one of its own, that of this copy
    configfile: CONFIG if CONFIG.exists() else Path(workflow.basedir, CONFIG)


report: "workflow/report/workflow.rst"


container: "dpmedbench.sif"  # made from Containerfile; used with --sdm apptainer only


include: "workflow/rules/common.smk"
include: "workflow/rules/figure_files.smk"
include: "workflow/rules/table_files.smk"


if not STUDY.unfinished:  # what makes cells; without it they are read as they are

    include: "workflow/rules/data.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/predict.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/contents.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/share.smk"


onsuccess:
    if any(job.rule is rules.report.rule for job in workflow.dag.jobs):
        print(f"The report is {RESULTS}/report.html")


onerror:
    for line in unfinished.failures(failed_logs()):
        print(line)
    if not STUDY.unfinished:
        again = {"--cores": ["all"]} | place_options() | config_options("unfinished=true")
        print(
            "For a report of what there is, which names what is missing: "
            f"snakemake {command_line(again)}"
        )


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/paper",
        rules.results.input,
        on_the_way(),
