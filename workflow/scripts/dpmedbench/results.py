"""The collected tables as one row a cell, and as test scores of patients."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dpmedbench import evaluation, tables

SETTING = ["dataset", "model", "mechanism", "privacy"]
CELL = [*SETTING, *evaluation.RUN]
TRAITS = [
    "engine",
    "mode",
    "clipping",
    "clipping_style",
    "layer_thresholds",
    "sparsification",
    "noise_schedule",
    "noise_multiplier",
    "target_epsilon",
    "beta",
]
ALWAYS = "constant_test_accuracy"  # of images, in any epoch
PLAN = ("epsilon", "epsilon_prv", "epochs", "num_records", "sampling", "delta")
# "published": the loader of a dataset that is not generated, which tells what is published of it
ABOUT = ("published", *PLAN, "first_epsilon", "batch_size", "device", "peak_gpu_bytes", ALWAYS)
LAST = (
    "train_loss",
    "val_loss",
    "val_dice",
    "val_dice_with_background",
    "val_miou",
    "val_pixel_accuracy",
    "val_accuracy",
    "val_balanced_accuracy",
    "train_accuracy",
    ALWAYS,
)
FIRST = {"epsilon": "first_epsilon", "val_pixel_accuracy": "first_val_pixel_accuracy"}
MEASURED = {
    "step_seconds_p50": "step_seconds",
    "epoch_seconds_p50": "epoch_seconds",
    "images_per_second": "images_per_second",
}
SCORED = {
    ("test_selected", "accuracy"): "test_accuracy_best",
    ("last_epoch", "accuracy"): "test_accuracy_last",
    ("model_on_noisy", "accuracy"): "noisy_accuracy",
    ("model_on_noisy", "balanced_accuracy"): "noisy_balanced_accuracy",
}
MODEL, CONSTANT = "model", "constant"


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        cells: a row a cell: `CELL`, `TRAITS`, `ABOUT` and what is measured once a cell (`numbers`),
            NaN where it is not.
        segmented: a row a cell, predictor, patient and class: "images", the means of
            `evaluation.SEGMENTED` over those that define them, in how many the class is "present",
            and in how many of these a distance is not defined (`evaluation.DISTANCES`).
        predicted: a row a cell, predictor and image: the predictions of all classifications.

    Predictors are "model", "constant" and, of segmentations, "model_on_noisy".
    """

    cells: pd.DataFrame
    segmented: pd.DataFrame
    predicted: pd.DataFrame

    @property
    def numbers(self) -> list[str]:
        """The columns of `cells` that hold a result."""
        known = {*CELL, *TRAITS, *ABOUT}
        return [column for column in self.cells if column not in known]

    def settings(self) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
        """(`SETTING` values, their cells), in the order of the table."""
        return iter(self.cells.groupby(SETTING, sort=False))

    def tests(self, cells: pd.DataFrame, predictor: str = MODEL) -> evaluation.Evaluation | None:
        """What `cells` of one dataset and model scored, None where they were not tested."""
        for groups, task in (
            (self._segmented, evaluation.segmentation),
            (self._predicted, evaluation.classification),
        ):
            names = [(predictor, *cell) for cell in cells[CELL].itertuples(index=False)]
            if parts := [groups[name] for name in names if name in groups]:
                return task(pd.concat(parts))
        return None

    @functools.cached_property
    def test_scores(self) -> pd.DataFrame:
        """A row a cell and patient: `CELL`, "patient", "score" and "part".

        The mean of either over the patients of a cell is the primary metric: "score" for
        intervals, "part" for tests (`Evaluation.primary`, `Evaluation.parts`).
        """
        parts = []
        for setting, cells in self.settings():
            if (test := self.tests(cells)) is None:
                continue
            index = pd.MultiIndex.from_tuples(
                [(*run, patient) for run in test.runs for patient in test.patients],
                names=[*evaluation.RUN, "patient"],
            )
            values = {"score": test.primary.ravel(), "part": test.parts.ravel()}
            long = pd.DataFrame(values, index).dropna().reset_index()
            parts.append(long.assign(**dict(zip(SETTING, setting, strict=True))))
        empty = pd.DataFrame(columns=[*CELL, "patient", "score", "part"])
        return pd.concat(parts, ignore_index=True)[list(empty)] if parts else empty

    def primary(self, dataset: str) -> str:
        """The primary metric of the task of a dataset."""
        classified = (self.predicted["dataset"] == dataset).any()
        return "balanced_accuracy" if classified else "dice"

    @functools.cached_property
    def _segmented(self) -> dict[tuple, pd.DataFrame]:
        return dict(list(self.segmented.groupby(["predictor", *CELL], sort=False)))

    @functools.cached_property
    def _predicted(self) -> dict[tuple, pd.DataFrame]:
        return dict(list(self.predicted.groupby(["predictor", *CELL], sort=False)))


def read(paths: Mapping[str, str | Path], real: Mapping[str, str]) -> Results:
    """Read collected tables, given by kind; without "predictions" where nothing is classified.

    `real` names the loader of each dataset that is not generated.
    """
    numbers = _long_scores(paths["scores"])
    predicted = pd.DataFrame(columns=[*CELL, "predictor", "patient", "record"])
    if "predictions" in paths:
        predicted = tables.read(paths["predictions"]).assign(predictor=MODEL)
        predicted = pd.concat([predicted, _constant(predicted, numbers)], ignore_index=True)
    cells = _cells(paths, numbers)
    published = cells["dataset"].map(real).astype(object)
    return Results(cells.assign(published=published), _segmented(paths["scores"]), predicted)


def _cells(paths: Mapping[str, str | Path], scores: pd.DataFrame) -> pd.DataFrame:
    privacy = tables.read(paths["privacy"])
    privacy["layer_thresholds"] = _layer_thresholds(privacy)
    cost = tables.read(paths["cost"])
    gpu = cost["peak_gpu_bytes"].astype(float)
    cost["peak_bytes"] = gpu.where(gpu.notna(), cost["peak_host_bytes"])
    measured = ["batch_size", "device", *MEASURED.values(), "peak_bytes", "peak_gpu_bytes"]
    cost = cost.rename(columns=MEASURED)[[*CELL, *measured]]
    cells = privacy[[*CELL, *TRAITS, *PLAN]].merge(cost, on=CELL)
    cells = cells.merge(_last(paths["history"]), on=CELL)
    for (predictor, metric), name in SCORED.items():
        rows = scores[(scores["predictor"] == predictor) & (scores["metric"] == metric)]
        if len(rows):
            cells = cells.merge(
                rows[[*CELL, "value"]].rename(columns={"value": name}), on=CELL, how="left"
            )
    return cells


def _layer_thresholds(privacy: pd.DataFrame) -> pd.Series:
    """ "same" where each tensor has the whole threshold R, "scaled" where they share it, "none"
    where all have one norm."""
    whole = privacy["effective_max_grad_norm"] > 1.001 * privacy["max_grad_norm"]  # not by rounding
    of_layers = whole.map({True: "same", False: "scaled"})
    return of_layers.where(privacy["clipping_style"] == "per_layer", "none")


def _last(path: str | Path) -> pd.DataFrame:
    """The last and the first epoch of each cell, its mean validation loss and best training
    accuracy."""
    names = _columns(path)
    started = [name for name in FIRST if name in names]
    ended = [name for name in LAST if name in names]
    history = tables.read(path, list(dict.fromkeys((*CELL, *ended, *started))))
    of_cell = history.groupby(CELL, sort=False)
    last = of_cell[ended].last(skipna=False)
    last = last.join(of_cell[started].first(skipna=False).rename(columns=FIRST))
    last["mean_val_loss"] = of_cell["val_loss"].mean()
    if "train_accuracy" in history:
        last["train_accuracy_best"] = of_cell["train_accuracy"].max()
    return last.reset_index()


def _segmented(path: str | Path) -> pd.DataFrame:
    """Means over the images of a patient, read in a stream: the table has a row an image and
    class of every cell."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    from pyarrow import acero

    keys = [*CELL, "predictor", "patient", "class"]
    counts = ["present", *evaluation.DISTANCES.values()]
    names = [*keys, "images", *evaluation.SEGMENTED, *counts]
    if not set(evaluation.SEGMENTED) <= _columns(path):
        return pd.DataFrame(columns=names)
    field = {name: pc.field(name) for name in evaluation.SEGMENTED}
    score = {name: pc.if_else(pc.is_finite(of), of, None) for name, of in field.items()}
    present = pc.field("present").cast("int64")
    missed = [pc.if_else(score[name].is_valid(), 0, present) for name in evaluation.DISTANCES]
    table = ds.dataset(path)
    rows = pc.field("record").is_valid()
    columns = [*keys, "record", "present", *score]
    plan = [
        ("scan", acero.ScanNodeOptions(table, columns=columns, filter=rows)),
        ("filter", acero.FilterNodeOptions(rows)),
        (
            "project",
            acero.ProjectNodeOptions(
                [*map(pc.field, keys), pc.field("record"), *score.values(), present, *missed],
                [*keys, "images", *score, *counts],
            ),
        ),
        (
            "aggregate",
            acero.AggregateNodeOptions(
                [("images", "hash_count", None, "images")]
                + [(name, "hash_mean", None, name) for name in score]
                + [(name, "hash_sum", None, name) for name in counts],
                keys=keys,
            ),
        ),
    ]
    found = acero.Declaration.from_sequence([acero.Declaration(*step) for step in plan])
    return found.to_table(use_threads=False).select(names).to_pandas()


def _long_scores(path: str | Path) -> pd.DataFrame:
    """The rows of the scores that are no image's."""
    columns = [*CELL, "predictor", "metric", "predicted", "value"]
    if "metric" not in _columns(path):
        return pd.DataFrame(columns=columns)
    import pyarrow.parquet as pq

    wanted = [("metric", "in", ("accuracy", "balanced_accuracy", "confusion"))]
    return pq.read_table(path, columns=columns, filters=wanted).to_pandas()


def _constant(predicted: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The predictions of the constant predictor: sure of one class for every image."""
    rows = (scores["predictor"] == CONSTANT) & (scores["metric"] == "confusion")
    answers = scores.loc[rows & (scores["value"] > 0), [*CELL, "predicted"]].drop_duplicates(CELL)
    found = predicted.drop(columns="predicted").merge(answers, on=CELL)
    for name in [name for name in found if name.startswith("probability_")]:
        sure = (found["predicted"] == int(name.removeprefix("probability_"))).astype(float)
        found[name] = sure.where(found[name].notna())
    return found.astype({"predicted": int}).assign(predictor=CONSTANT)


def _columns(path: str | Path) -> set[str]:
    import pyarrow.parquet as pq

    return set(pq.read_schema(path).names)
