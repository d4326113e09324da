rule download:
    output:
        directory("resources/download/{dataset}"),
    log:
        "logs/download/{dataset}.log",
    wildcard_constraints:
        dataset=with_source("download"),
    localrule: True  # compute nodes seldom reach the internet
    conda:
        "../../envs/preprocess.yaml"
    params:
        loader=lambda wildcards: STUDY.datasets[wildcards.dataset].loader,
        archives="resources/archives",
    script:
        "../scripts/download.py"


rule weights:
    output:
        pretrained.PATH,
    log:
        "logs/weights.log",
    localrule: True
    conda:
        "../../envs/preprocess.yaml"
    script:
        "../scripts/weights.py"


rule phantom:
    output:
        directory(f"resources/phantom/{STUDY.study}/{{dataset}}"),
    log:
        f"logs/{STUDY.study}/phantom/{{dataset}}.log",
    wildcard_constraints:
        dataset=with_source("phantom"),
    conda:
        "../../envs/preprocess.yaml"
    params:
        loader=lambda wildcards: STUDY.datasets[wildcards.dataset].loader,
        phantom=lambda wildcards: STUDY.datasets[wildcards.dataset].phantom.model_dump(mode="json"),
        code=lambda wildcards: code("phantom.py", loader_of(wildcards)),
    script:
        "../scripts/phantom.py"


rule preprocess:
    input:
        raw_folder,
    output:
        STORE,
    log:
        f"logs/{STUDY.study}/preprocess/{{dataset}}.log",
    benchmark:
        f"logs/{STUDY.study}/preprocess/{{dataset}}.benchmark.tsv"
    conda:
        "../../envs/preprocess.yaml"
    threads: 16
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,  # some images a thread, not all
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        dataset=lambda wildcards: STUDY.datasets[wildcards.dataset].model_dump(
            mode="json", exclude={"optional", "split", "class_weights", "noise_seed"}
        ),
        raw=raw_digest,
        code=lambda wildcards: code("preprocess.py", loader_of(wildcards)),
    script:
        "../scripts/preprocess.py"


rule perturb:
    input:
        STORE,
    output:
        NOISY,
    log:
        f"logs/{STUDY.study}/perturb/{{dataset}}.{{mode}}.{{privacy}}.log",
    wildcard_constraints:
        mode="[a-z_]+",
    conda:
        "../../envs/train.yaml"
    params:
        noise=noise_of,
        code=code("perturb.py"),
    script:
        "../scripts/perturb.py"


rule split:
    input:
        STORE,
    output:
        # kept on a second run, so that what a person edited is not lost
        splits=update(SPLITS),
        # which a failed job gives back: this one is then missing, and it is tried again
        made=touch(SPLITS_MADE),
    log:
        f"logs/{STUDY.study}/split/{{dataset}}.log",
    conda:
        "../../envs/preprocess.yaml"
    params:
        split=lambda wildcards: STUDY.datasets[wildcards.dataset].split.model_dump(mode="json"),
        code=code("split.py"),
    script:
        "../scripts/split.py"
