rule segment:
    input:
        model=f"{RESULTS}/cells/{CELL}/model.safetensors",
        history=f"{RESULTS}/cells/{CELL}/history.parquet",
        data=STORE,
        splits=SPLITS,
        perturbed=perturbed_images,
    output:
        masks=f"{RESULTS}/cells/{CELL}/masks.h5",
        scores=f"{RESULTS}/cells/{CELL}/scores.parquet",
    log:
        f"logs/{STUDY.study}/predict/{CELL}.log",
    wildcard_constraints:
        dataset=pattern_for("segmentation"),
    conda:
        "../../envs/predict.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,  # a batch of images, not all
    params:
        model=lambda wildcards: STUDY.models[wildcards.model].model_dump(
            mode="json", exclude={"weights", "weights_file"}
        ),
        code=predict_code,
    script:
        "../scripts/predict.py"


use rule segment as classify with:
    output:
        predictions=f"{RESULTS}/cells/{CELL}/predictions.parquet",
        scores=f"{RESULTS}/cells/{CELL}/scores.parquet",
    wildcard_constraints:
        dataset=pattern_for("classification"),
