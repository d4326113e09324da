from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


container: "dpmedbench.sif"  # made from Containerfile; used with --sdm apptainer only


include: "workflow/rules/common.smk"


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
    print(f"The report is {RESULTS}/report.html")


onerror:
    if not STUDY.unfinished:
        print(
            "For a report of what there is, which names what is missing: "
            f"snakemake --cores all {config_options('unfinished=true')}"
        )


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/paper",
