rule predict:
    input:
        model=f"{RESULTS}/cells/{CELL}/model.safetensors",
        history=f"{RESULTS}/cells/{CELL}/history.parquet",
        data="results/data/{dataset}.h5",
        splits="results/data/{dataset}.splits.csv",
    output:
        masks=f"{RESULTS}/cells/{CELL}/masks.h5",
        scores=f"{RESULTS}/cells/{CELL}/scores.parquet",
    log:
        f"logs/{STUDY.study}/predict/{CELL}.log",
    conda:
        "../../envs/predict.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        model=lambda wildcards: STUDY.models[wildcards.model].model_dump(mode="json"),
        code=lambda wildcards: code("predict.py", f"models.{STUDY.models[wildcards.model].network}"),
    script:
        "../scripts/predict.py"
