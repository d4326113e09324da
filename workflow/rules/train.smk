rule train:
    input:
        data=STORE,
        splits=SPLITS,
        weights=weights_file,
        perturbed=perturbed_images,
    output:
        model=f"{RESULTS}/cells/{CELL}/model.safetensors",
        history=f"{RESULTS}/cells/{CELL}/history.parquet",
        privacy=f"{RESULTS}/cells/{CELL}/privacy.json",
        cost=f"{RESULTS}/cells/{CELL}/cost.json",
        manifest=f"{RESULTS}/cells/{CELL}/manifest.json",
    log:
        f"logs/{STUDY.study}/train/{CELL}.log",
    benchmark:
        f"logs/{STUDY.study}/train/{CELL}.benchmark.tsv"
    conda:
        lambda wildcards: (
            "../../envs/train_fastdp.yaml"
            if STUDY.mechanisms[wildcards.mechanism].engine == "fastdp"
            else "../../envs/train.yaml"
        )
    threads: 4
    resources:
        **cells.execution(STUDY),  # not params: they train nothing again
        gpu=1,
        mem_mb=megabytes(8000, 4),
        runtime=train_minutes,
    params:
        settings=lambda wildcards: cells.settings(STUDY, cell_of(wildcards)),
        state=f"state/{STUDY.study}/{CELL}",
        code=lambda wildcards: train_code(cell_of(wildcards)),
    script:
        "../scripts/train.py"
