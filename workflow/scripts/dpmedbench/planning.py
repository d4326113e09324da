"""From a cell's settings to its privacy plan and to where its draws come from."""

from __future__ import annotations

from dataclasses import replace

import torch

from dpmedbench import mechanisms
from dpmedbench.errors import UserError
from dpmedbench.privacy.plan import PrivacyPlan, thresholds
from dpmedbench.privacy.randomness import Randomness, stream, stream_seed
from dpmedbench.privacy.schedules import factors


def decisive(settings: dict) -> dict:
    """The settings that decide the weights: at a given noise delta and accountant do not.

    Args:
        settings: as made by `cells.settings`.
    """
    if settings["identity"]["target_epsilon"] is not None:
        return settings
    counted = ("delta", "accountant")
    rest = {key: value for key, value in settings["privacy"].items() if key not in counted}
    return settings | {"privacy": rest}


def plan_for(settings: dict, network: torch.nn.Module, num_records: int) -> PrivacyPlan | None:
    """The plan of a private cell, its noise calibrated where a budget is given; else None.

    Args:
        settings: as made by `cells.settings`.
        num_records: of the training set.
    """
    mechanism, privacy = settings["mechanism"], settings["privacy"]
    if not privacy:
        return None
    identity, options = settings["identity"], settings["training"]
    schedule = mechanism["noise_schedule"]
    plan = PrivacyPlan(
        unit=privacy["unit"],
        sampling=privacy["sampling"],
        neighbouring=privacy["neighbouring"],
        num_records=num_records,
        batch_size=options["batch_size"],
        epochs=options["epochs"],
        noise_multiplier=identity["noise_multiplier"] or 1.0,
        thresholds=thresholds(
            mechanism["max_grad_norm"],
            mechanism["clipping_style"],
            mechanism["layer_thresholds"],
            sum(parameter.requires_grad for parameter in network.parameters()),
        ),
        delta=privacy["delta"],
        accountant=privacy["accountant"],
        noise_factors=()
        if schedule["kind"] == "constant"
        else factors(schedule["kind"], options["epochs"], **schedule["options"]),
    )
    if identity["target_epsilon"] is not None:
        plan = plan.calibrated(identity["target_epsilon"])
    if mechanism["clipping"] != "adaptive":
        return plan
    largest = plan.noise_multiplier * max(plan.noise_factors, default=1.0)
    return replace(plan, count_noise=mechanism["adaptive"]["count_noise"] or largest)


def check_images(settings: dict, perturbation: dict | None) -> None:
    """Raise UserError unless the images have the noise that the cell is named after.

    Args:
        perturbation: of the images to train on, as their store says it; None: no noise.
    """
    mechanism, keys = settings["mechanism"], ("mode", "beta")
    local = mechanisms.capabilities(mechanism["engine"]).local
    expected = {key: mechanism[key] for key in keys} if local else None
    found = perturbation and {key: perturbation[key] for key in keys}
    if found != expected:
        raise UserError(
            f"training images: found {_words(found)}, expected {_words(expected)}; delete the "
            "file of the images and run again"
        )


def _words(noise: dict | None) -> str:
    return f"{noise['mode']} noise of scale {noise['beta']:g}" if noise else "no noise"


def run_seed(settings: dict) -> int:
    """The seed of all that a run draws: another one in each fold.

    Folds that start from the same weights and get the same noise share its luck, which no interval
    over folds would show. Mechanisms of a run share theirs: they are compared in pairs.
    """
    identity = settings["identity"]
    return stream_seed(identity["seed"], f"fold{identity['fold']}")


def randomness(settings: dict, purpose: str, device: torch.device | str) -> Randomness:
    """Where the draws for one purpose come from: streams of one cell are independent."""
    secure = settings["privacy"].get("secure_rng")
    return stream(None if secure else run_seed(settings), purpose, device)
