rule train:
    input:
        data="results/data/{dataset}.h5",
        splits="results/data/{dataset}.splits.csv",
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
        "../../envs/train.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=1440,
    params:
        settings=lambda wildcards: cells.settings(STUDY, cell_of(wildcards)),
        state=f"state/{STUDY.study}/{CELL}",
        code=train_code,
    script:
        "../scripts/train.py"
