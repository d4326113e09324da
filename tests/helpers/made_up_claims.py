"""Made-up results of cells, with the effects that claims are about."""

from __future__ import annotations

import math

import pandas as pd

from dpmedbench import evaluation, results

RUNS = 4
SIGMAS = (0.3, 0.5, 0.7, 1.0)
RECORDS = {"duke": 88, "umn": 575}  # 80 % of the images, by whole patients
FLAT = {"clipping_style": "flat"}
PER_LAYER = {"clipping_style": "per_layer", "layer_thresholds": "same"}
WAYS = {
    "ordinary": {"engine": "none"},
    "opacus": {"engine": "opacus", "mode": "hooks", "clipping": "abadi"} | PER_LAYER,
    "book_keeping": {"engine": "bookkeeping", "mode": "mix_opt", "clipping": "automatic"} | FLAT,
    "automatic": {"engine": "opacus", "mode": "hooks", "clipping": "automatic"} | PER_LAYER,
    "sparsified": {"engine": "opacus", "mode": "hooks", "clipping": "abadi", "sparsification": 0.9}
    | PER_LAYER,
    "laplace": {"engine": "local", "mode": "laplace"},
    "scalar": {"engine": "local", "mode": "scalar_per_image"},
    "flat": {"engine": "opacus", "mode": "hooks", "clipping": "abadi"} | FLAT,
    "alike": {"engine": "opacus", "mode": "hooks", "clipping": "automatic"} | FLAT,
    "fastdp": {"engine": "fastdp", "mode": "mix_opt", "clipping": "automatic"} | FLAT,
    "ghost_clip": {"engine": "bookkeeping", "mode": "ghost_clip", "clipping": "abadi"} | FLAT,
}
COUNTS = {"images": 1, "present": 1, **dict.fromkeys(evaluation.DISTANCES.values(), 0)}
METRICS = (
    *("train_loss", "val_loss", "mean_val_loss", "train_accuracy_best", "test_accuracy_best"),
    *("val_pixel_accuracy", "first_val_pixel_accuracy", "first_epsilon"),
    *("step_seconds", "epoch_seconds", "peak_gpu_bytes"),
)


def cell(way, run, level=None, model="unet", dataset="duke", **values):
    """A row of the cells; its mechanism has a name that says nothing."""
    label = {"laplace": "beta", "scalar": "beta"}.get(way, "sigma")
    place = {
        "dataset": dataset,
        "model": model,
        "mechanism": f"way_{list(WAYS).index(way)}",
        "privacy": "none" if level is None else f"{label}{level:g}",
        "fold": run,
        "seed": 0,
    }
    traits = dict.fromkeys(results.TRAITS, "none")
    traits |= {"sparsification": math.nan, "target_epsilon": math.nan, "beta": math.nan}
    traits |= {"noise_multiplier": 0.0, "noise_schedule": None}
    if level is not None:
        traits["beta" if label == "beta" else "noise_multiplier"] = level
    private = label == "sigma" and level is not None
    traits["noise_schedule"] = "constant" if private else None
    numbers = dict.fromkeys(METRICS, 1.0)
    numbers |= dict.fromkeys(("epsilon", "epsilon_prv"), 10.0 if private else math.inf)
    numbers |= {"epochs": 100, "batch_size": 10}
    numbers |= {"sampling": "poisson", "delta": 1e-5, "num_records": RECORDS.get(dataset, 99)}
    numbers |= {"device": "made-up device", "published": dataset}
    return place | traits | WAYS[way] | numbers | values


def made(cells, scores=None, classified=False):
    """Results of `cells`; `scores` has the test score of each (`classified`: fifths)."""
    segmented, predicted = [], []
    for row, score in zip(cells, scores or [], strict=bool(scores)):
        place = {name: row[name] for name in results.CELL} | {"predictor": "model"}
        for patient in range(20):
            if not classified:
                dice = dict.fromkeys(evaluation.SEGMENTED, score + 0.01 * (patient % 3 - 1))
                segmented += [
                    place | {"patient": f"p{patient}", "class": c} | dice | COUNTS for c in range(2)
                ]
                continue
            for image in range(10):
                label, right = image % 2, image // 2 < round(5 * score)
                answer = label if right else 1 - label
                images = {"patient": f"p{patient}", "record": 10 * patient + image, "label": label}
                sure = {"predicted": answer, "probability_0": 1.0 - answer, "probability_1": answer}
                predicted.append(place | images | sure)
    empty = pd.DataFrame(columns=[*results.CELL, "predictor"])
    return results.Results(
        pd.DataFrame(cells),
        pd.DataFrame(segmented) if segmented else empty,
        pd.DataFrame(predicted) if predicted else empty,
    )


def pair(first, second, metric, base=0.0, levels=SIGMAS, **places):
    """Of `second`, at each level and run, `metric` is `base` + the effect; of `first` it is 1."""

    def of(effect):
        found = []
        for run in range(RUNS):
            found += [
                cell(first, run, None if first == "ordinary" else level, **places)
                for level in (levels[:1] if first == "ordinary" else levels)
            ]
            found += [
                cell(second, run, level, **places | {metric: base + effect(run)})
                for level in levels
            ]
        return made(found)

    return of


def networks(metric, base=0.0):
    """`metric` of Nested U-Net is `base` + the effect; of U-Net it is 1."""

    def of(effect):
        return made(
            [cell("automatic", run, level) for run in range(RUNS) for level in SIGMAS]
            + [
                cell("automatic", run, level, "nested_unet", **{metric: base + effect(run)})
                for run in range(RUNS)
                for level in SIGMAS
            ]
        )

    return of


def rising(way, metric, slope=lambda level, effect: effect * level):
    """`metric` has the effect as slope over the noise."""

    def of(effect):
        return made(
            [
                cell(way, run, level, **{metric: slope(level, effect(run))})
                for run in range(RUNS)
                for level in SIGMAS
            ]
        )

    return of


def middle(way, dataset):
    """The middle noise multipliers take the effect times the seconds of the ends."""

    def of(effect):
        cells = [
            cell(way, run, level, dataset=dataset, epoch_seconds=effect(run) if among else 1.0)
            for run in range(RUNS)
            for level, among in zip(SIGMAS, (False, True, True, False), strict=True)
        ]
        return made(cells)

    return of


def scored(way, levels=(1, 2, 4)):
    """The balanced accuracy falls by the effect at each level."""

    def of(effect):
        cells = [cell(way, run, level) for run in range(RUNS) for level in levels]
        scores = [
            0.4 + effect(run) * (rank - 1) for run in range(RUNS) for rank in range(len(levels))
        ]
        return made(cells, scores, classified=True)

    return of


def best_automatic(effect):
    """One noise level is better than the others by 1; its validation loss is 1 + the effect."""
    cells = []
    for run in range(RUNS):
        cells.append(cell("ordinary", run))
        cells.append(cell("automatic", run, 0.5, val_loss=1 + effect(run)))
        cells.append(cell("automatic", run, 1.0, val_loss=2 + effect(run)))
    return made(cells)


def sparse(effect):
    """Ordinary training has loss 1, automatic clipping 3, sparsification 3 + the effect."""
    cells = []
    for run in range(RUNS):
        cells.append(cell("ordinary", run))
        cells.append(cell("automatic", run, 1.0, train_loss=3.0))
        cells.append(cell("sparsified", run, 1.0, train_loss=3 + effect(run)))
    return made(cells)


def published_epsilon(effect):
    """By prv the effect times what is published; neither other lengths nor Book-Keeping on UMN,
    of which nothing is, count."""
    found = []
    for run in range(RUNS):
        for dataset, value in (("duke", 500), ("umn", 350)):
            same = {"run": run, "level": 0.3, "dataset": dataset}
            found.append(cell("opacus", epsilon_prv=value * effect(run), epsilon=1.0, **same))
        found.append(cell("book_keeping", run, 0.3, epsilon_prv=1.0, epochs=7))
        found.append(cell("book_keeping", run, 0.3, dataset="umn", epsilon_prv=1.0))
    return made(found)


def falling_epsilon(effect):
    """Epsilon at each noise is the effect times that at the one before; seeds are averaged."""
    return made(
        [
            cell(way, run, level, dataset=f"data_{run}", epsilon=100 * effect(run) ** rank)
            for way in ("opacus", "book_keeping")
            for run in range(RUNS)
            for rank, level in enumerate(SIGMAS)
        ]
    )


def fastest_of_nested(effect):
    """Noise 1 takes the effect times the others' seconds."""
    cells = []
    for run in range(RUNS):
        same = {"run": run, "model": "nested_unet"}
        cells.append(cell("ordinary", **same))
        cells += [cell("automatic", level=level, **same) for level in SIGMAS[:3]]
        cells.append(cell("automatic", level=1.0, epoch_seconds=effect(run), **same))
    return made(cells)


def gains(effect):
    """Automatic clipping takes twice the time of ordinary training, in Nested U-Net that times the
    effect; a noise that Nested U-Net lacks does not count."""
    cells = [cell("automatic", run, 0.1, epoch_seconds=99.0) for run in range(RUNS)]
    for run in range(RUNS):
        for model, ratio in (("unet", 2.0), ("nested_unet", 2 * effect(run))):
            cells.append(cell("ordinary", run, model=model, epoch_seconds=60.0))
            cells += [
                cell("automatic", run, level, model, epoch_seconds=60 * ratio) for level in SIGMAS
            ]
    return made(cells)


def most_saved(way):
    """Of two rivals the one takes the effect times the memory, the other hardly more."""

    def of(effect):
        cells = [cell(way, run, 1.0) for run in range(RUNS)]
        cells += [cell("flat", run, 1.0, peak_gpu_bytes=effect(run)) for run in range(RUNS)]
        cells += [cell("ghost_clip", run, 1.0, peak_gpu_bytes=1.01) for run in range(RUNS)]
        return made(cells)

    return of


def on_patients(effect):
    """The Dice of automatic clipping is 0.5 + the effect, that of ordinary training 0.5."""
    cells = [cell("ordinary", run) for run in range(RUNS)]
    cells += [cell("automatic", run, 1.0) for run in range(RUNS)]
    return made(cells, [0.5] * RUNS + [0.5 + effect(run) for run in range(RUNS)])


def local_and_private(way, other):
    """The accuracy of DP-SGD is 0.4, that of a local noise 0.4 + the effect; another does not
    count."""

    def of(effect):
        cells = [cell(name, run, 2) for name in ("opacus", way, other) for run in range(RUNS)]
        scores = [0.4] * RUNS + [0.4 + effect(run) for run in range(RUNS)] + [1.0] * RUNS
        return made(cells, scores, classified=True)

    return of


def ranges(effect):
    """The losses of the two settings that both datasets have lie 1 apart on Duke, by the effect
    more on UMN; a setting of one dataset does not count."""
    cells = []
    for run in range(RUNS):
        for dataset, apart in (("duke", 1.0), ("umn", 1 + effect(run))):
            cells.append(cell("ordinary", run, dataset=dataset))
            cells.append(cell("book_keeping", run, 0.5, dataset=dataset, mean_val_loss=1 + apart))
        cells.append(cell("opacus", run, 0.5, mean_val_loss=99.0))
    return made(cells)


def one_case(effect):
    """The test accuracy is above that of training by the effect at one beta, below at another."""
    cells = [cell("scalar", run, 4, test_accuracy_best=1 + effect(run)) for run in range(RUNS)]
    return made(cells + [cell("laplace", run, 1, test_accuracy_best=0.1) for run in range(RUNS)])
