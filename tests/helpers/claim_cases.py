"""Of each published claim made-up results, and the effects that force each verdict."""

from __future__ import annotations

import math

from made_up_claims import (
    best_automatic,
    falling_epsilon,
    fastest_of_nested,
    gains,
    local_and_private,
    middle,
    most_saved,
    networks,
    on_patients,
    one_case,
    pair,
    published_epsilon,
    ranges,
    rising,
    scored,
    sparse,
)


def doubling(level, effect):
    return effect * math.log2(level)


BY_ENGINE = {"bookkeeping": "book_keeping", "fastdp": "fastdp"}
BY_NOISE = {"laplace": "laplace", "scalar": "scalar", "dp_sgd": "opacus"}
# claim: what makes the results, the effect that supports it, one that contradicts it, and two
# that take turns over the runs, so that it cannot be decided
CASES = {
    "bookkeeping.budget": (pair("opacus", "book_keeping", "epsilon"), 5.0, 10.0, (9.0, 11.0)),
    "bookkeeping.budget_duke": (pair("opacus", "book_keeping", "epsilon"), 10.05, 8.0, (8.0, 12.0)),
    "bookkeeping.budget_umn": (
        pair("opacus", "book_keeping", "epsilon", dataset="umn"),
        *(5.0, 10.0, (9.0, 11.0)),
    ),
    "bookkeeping.budget_noise": (falling_epsilon, 0.5, 1.0, (0.5, 1.5)),
    "bookkeeping.budget_reached": (published_epsilon, 1.0, 0.5, (0.8, 1.2)),
    **{
        f"bookkeeping.{name}_{engine}": (pair(way, other, "epoch_seconds"), 1.5, 0.8, (0.5, 2.0))
        for name, other in (("time", "opacus"), ("time_alike", "alike"))
        for engine, way in BY_ENGINE.items()
    },
    "bookkeeping.time_noise_duke": (middle("book_keeping", "duke"), 1.2, 1.0, (0.7, 1.4)),
    "bookkeeping.time_noise_umn": (middle("book_keeping", "umn"), 0.8, 1.0, (0.7, 1.4)),
    "bookkeeping.time_noise_umn_opacus": (middle("opacus", "umn"), 0.8, 1.0, (0.7, 1.4)),
    "bookkeeping.time_noise_duke_opacus": (
        rising("opacus", "epoch_seconds", lambda level, effect: 60 * math.exp(effect * level)),
        *(-0.5, -0.02, (-0.5, 0.5)),
    ),
    "bookkeeping.training_loss_noise": (rising("opacus", "train_loss"), 0.5, -0.5, (-0.5, 0.5)),
    "bookkeeping.validation_loss_noise": (
        rising("book_keeping", "val_loss"),
        *(0.5, -0.5, (-0.5, 0.5)),
    ),
    "bookkeeping.budget_early": (
        pair("opacus", "book_keeping", "first_epsilon"),
        *(0.5, 1.0, (0.9, 1.1)),
    ),
    **{
        f"bookkeeping.{name}": (
            pair("book_keeping", "opacus", loss, 1.0, dataset=dataset),
            *(0.2, -0.2, (-0.2, 0.2)),
        )
        for name, loss, dataset in (
            ("training_loss_duke", "train_loss", "duke"),
            ("validation_loss_duke", "val_loss", "duke"),
            ("lower_umn_train", "train_loss", "umn"),
            ("lower_umn_val", "val_loss", "umn"),
            ("validation_loss", "mean_val_loss", "duke"),
        )
    },
    **{
        f"bookkeeping.{name}": (pair(*ways, loss, dataset=dataset), 1.02, 1.4, (0.7, 1.4))
        for name, dataset, loss, *ways in (
            ("training_loss_umn", "umn", "train_loss", "ordinary", "book_keeping"),
            ("validation_loss_umn", "umn", "val_loss", "ordinary", "book_keeping"),
            ("training_loss_umn_opacus", "umn", "train_loss", "book_keeping", "opacus"),
            ("validation_loss_umn_opacus", "umn", "val_loss", "book_keeping", "opacus"),
            ("training_loss_duke_alike", "duke", "train_loss", "book_keeping", "alike"),
            ("validation_loss_alike", "duke", "mean_val_loss", "book_keeping", "alike"),
        )
    },
    "bookkeeping.loss_range": (ranges, -0.5, 0.5, (-0.5, 0.5)),
    **{
        f"local_dp.{name}_{noise}": (rising(way, metric, doubling), *effects)
        for name, metric, *effects in (
            ("training_accuracy", "train_accuracy_best", -0.05, 0.05, (-0.05, 0.05)),
            ("test_accuracy", "test_accuracy_best", 0.0, -0.2, (-0.2, 0.2)),
            ("decline", "test_accuracy_best", -0.2, 0.2, (-0.2, 0.2)),
        )
        for noise, way in BY_NOISE.items()
    },
    **{
        f"local_dp.{name}_balanced_{noise}": (scored(way), *effects)
        for name, *effects in (
            ("test_accuracy", 0.0, -0.2, (-0.2, 0.2)),
            ("decline", -0.2, 0.2, (-0.2, 0.2)),
        )
        for noise, way in BY_NOISE.items()
    },
    **{
        f"local_dp.local_better_{way}": (
            pair("opacus", way, "test_accuracy_best", 1.0),
            *(0.2, -0.2, (-0.2, 0.2)),
        )
        for way in ("laplace", "scalar")
    },
    **{
        f"local_dp.local_better_balanced_{way}": (
            local_and_private(way, other),
            *(0.2, -0.2, (-0.2, 0.2)),
        )
        for way, other in (("laplace", "scalar"), ("scalar", "laplace"))
    },
    "local_dp.below_test_accuracy": (one_case, 0.2, -0.2, (-0.2, 0.2)),
    **{
        f"engines.{name}_{engine}": (pair("ordinary", way, metric), 1.1, 1.5, (1.0, 1.5))
        for name, metric in (("time", "step_seconds"), ("memory", "peak_gpu_bytes"))
        for engine, way in BY_ENGINE.items()
    },
    **{
        f"engines.{name}_{engine}": (pair(way, "flat", metric), *effects)
        for name, metric, *effects in (
            ("faster", "step_seconds", 1.5, 0.8, (0.5, 2.0)),
            ("leaner", "peak_gpu_bytes", 1.5, 0.8, (0.5, 2.0)),
            ("speed", "step_seconds", 2.0, 1.2, (0.5, 3.0)),
        )
        for engine, way in BY_ENGINE.items()
    },
    **{
        f"engines.saving_{engine}": (most_saved(way), 10.0, 1.03, (2.0, 11.0))
        for engine, way in BY_ENGINE.items()
    },
    "engines.ghost_clip": (pair("ordinary", "ghost_clip", "step_seconds"), 2.0, 3.0, (1.0, 3.0)),
    "engines.opacus_overhead": (pair("ordinary", "opacus", "step_seconds"), 2.4, 4.0, (1.5, 4.0)),
    "clipping.training_loss": (
        pair("ordinary", "automatic", "train_loss", 1.0),
        *(-0.2, 0.2, (-0.2, 0.2)),
    ),
    "clipping.validation_loss_unet": (best_automatic, -0.2, 0.2, (-0.2, 0.2)),
    "clipping.validation_loss_nested": (
        pair("ordinary", "automatic", "val_loss", 1.0, model="nested_unet"),
        *(0.2, -0.2, (-0.2, 0.2)),
    ),
    "clipping.sparsification_loss": (sparse, 0.2, -0.2, (-0.2, 0.2)),
    "clipping.budget_complexity": (networks("epsilon"), 12.0, 10.0, (9.0, 12.0)),
    "clipping.budget_noise": (falling_epsilon, 0.5, 1.0, (0.5, 1.5)),
    "clipping.time_nested": (networks("epoch_seconds"), 3.0, 0.8, (0.5, 2.0)),
    "clipping.time_automatic": (fastest_of_nested, 0.8, 1.2, (0.5, 2.0)),
    "clipping.efficiency": (
        pair("ordinary", "automatic", "epoch_seconds"),
        *(0.8, 1.2, (0.5, 2.0)),
    ),
    "clipping.efficiency_nested": (gains, 0.8, 1.2, (0.5, 2.0)),
    "clipping.accuracy_nested": (networks("val_pixel_accuracy", 1.0), 0.1, -0.1, (-0.1, 0.1)),
    "clipping.accuracy_nested_automatic": (
        pair("ordinary", "automatic", "val_pixel_accuracy", 1.0, model="nested_unet"),
        *(0.0, -0.1, (-0.1, 0.1)),
    ),
    "clipping.accuracy_start": (
        pair("ordinary", "automatic", "first_val_pixel_accuracy", 1.0),
        *(0.2, -0.2, (-0.2, 0.2)),
    ),
    "clipping.matching_train_loss": (
        pair("ordinary", "automatic", "train_loss"),
        *(1.0, 1.4, (0.7, 1.4)),
    ),
    "clipping.matching_val_loss": (
        pair("ordinary", "automatic", "val_loss"),
        *(1.0, 1.4, (0.7, 1.4)),
    ),
    "clipping.matching_accuracy": (
        pair("ordinary", "automatic", "val_pixel_accuracy", 1.0),
        *(0.0, -0.1, (-0.1, 0.1)),
    ),
    "clipping.utility": (on_patients, 0.0, -0.1, (-0.1, 0.1)),
}
