"""Made-up summary, comparisons and claims: what a report is written of."""

from __future__ import annotations

import math

import pandas as pd

from dpmedbench.comparisons import FEW

NOT = math.nan
WAYS = {
    "constant": ("none", "none", NOT, math.inf),
    "non_private": ("none", "autograd", NOT, math.inf),
    "opacus_flat": ("opacus", "hooks", NOT, 8.25),
    "bookkeeping": ("bookkeeping", "mix_opt", NOT, 8.25),
    "local_laplace": ("local", "laplace", 0.5, math.inf),
}


def setting(mechanism: str, privacy: str = "none", dataset: str = "duke") -> dict:
    """The columns that name a setting."""
    engine, mode, beta, epsilon = WAYS[mechanism]
    return {
        "dataset": dataset,
        "model": "unet",
        "mechanism": mechanism,
        "privacy": privacy,
        "engine": engine,
        "mode": mode,
        "beta": beta,
        "epsilon": epsilon,
    }


def value(of: dict, metric: str, mean: float, width: float = NOT) -> dict:
    """A row of the summary."""
    ends = {"low": mean - width, "high": mean + width}
    runs = 1 if math.isnan(width) else 3
    return of | {"metric": metric, "value": mean, "runs": runs, "patients": 7} | ends


SUMMARY = pd.DataFrame(
    [
        value(setting("non_private"), "dice", 0.8123, 0.02),
        value(setting("non_private"), "step_seconds", 0.1, 0.01),
        value(setting("opacus_flat", "sigma0.5"), "dice", 0.4, 0.05),
        value(setting("opacus_flat", "sigma0.5"), "step_seconds_ratio", 1.8, 0.1),
        value(setting("bookkeeping", "sigma0.5"), "dice", 0.45, 0.05),
        value(setting("bookkeeping", "sigma0.5"), "step_seconds_ratio", 1.3, 0.1),
        value(setting("opacus_flat", "sigma1"), "dice", 0.3),
        value(setting("local_laplace", "beta0.5"), "dice", 0.2),
        value(setting("constant"), "dice", 0.1, 0.01),
        *(
            value(setting(*way, dataset="chest_xray"), metric, mean)
            for way in (("non_private",), ("local_laplace", "beta0.5"))
            for metric, mean in (
                ("train_accuracy", 0.99),
                ("train_accuracy_best", 0.995),
                ("test_accuracy_best", 0.9),
                ("test_accuracy_last", 0.8),
                ("accuracy", 0.7),  # of patients
            )
        ),
        *(
            value(setting("constant", dataset="chest_xray"), metric, 0.625)
            for metric in ("test_accuracy_best", "test_accuracy_last")
        ),
    ]
)
COMPARISONS = pd.DataFrame(
    [
        {
            "dataset": "duke",
            "model": "unet",
            "privacy": "sigma0.5",
            "first": "opacus_flat",
            "second": "bookkeeping",
            "metric": metric,
            "difference": difference,
            "low": difference - abs(difference) / 2,
            "high": difference + abs(difference) / 2,
            "p": 0.01,
            "p_holm": 0.02,
            "pairs": 4,
            "verdict": verdict,
            "note": note,
        }
        for metric, difference, verdict, note in (
            ("dice", 0.05, "higher", ""),
            ("step_seconds", -0.02, "cannot be separated", FEW),
        )
    ]
)
CLAIMS = pd.DataFrame(
    [
        {
            "id": f"{study}-{verdict}",
            "study": study,
            "source": "Figures 5 & 6",
            "claim": f"Book-Keeping is <faster> than Opacus, {number}",
            "statistic": "ratio of step times at equal σ",
            "finding": "1.80 [1.70, 1.90] times, 50 % more",
            "value": 1.8,
            "low": 1.7,
            "high": 1.9,
            "verdict": verdict,
        }
        for number, (study, verdict) in enumerate(
            (
                ("bookkeeping", "supported"),
                ("bookkeeping", "contradicted"),
                ("local_dp", "cannot be separated"),
                ("clipping", "not run"),
                ("clipping", "not run"),
            )
        )
    ]
)
SUPPORT = pd.DataFrame(
    [{"engine": "opacus", "mode": "hooks", "abadi, flat": True, "automatic, flat": False}]
)
PRIVACY = SUMMARY[["dataset", "model", "mechanism", "privacy"]].drop_duplicates()
PRIVACY = PRIVACY.assign(
    epsilon_per_image=PRIVACY["privacy"].map({"beta0.5": 2.0 * 224 * 224}).fillna(math.inf)
)
TABLES = {
    "summary": SUMMARY,
    "privacy": PRIVACY,
    "comparisons": COMPARISONS,
    "claims": CLAIMS,
    "support": SUPPORT,
}


def manifest(engine: str = "opacus", commit: str | None = 40 * "a", **versions: str) -> dict:
    """What the front page reads of the manifest of a cell."""
    return {
        "settings": {
            "identity": {"engine": engine, "privacy": "none" if engine == "none" else "sigma1"}
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "opacus": "1.6.0"} | versions,
        "commit": commit,
        "device": "AMD EPYC, 2 threads",
    }
