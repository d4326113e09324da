"""The report: its headings, its pages of tables, its front page, and the export for a paper.

Nothing at this level imports anything heavy: the Snakefile reads it on every call.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpmedbench.figures import BEYOND, STUDIES

FINDINGS = "What this run says"
SCANS = "Test scans of every setting"


def heading(title: str, study: str) -> str:
    """A category of the report, numbered, because the report sorts them by their letters.

    Findings first, then the published study that runs, the other ones, what lies beyond them, and
    the pictures of single cells.
    """
    published = sorted(STUDIES, key=lambda name: name != study)
    order = [FINDINGS, *(STUDIES[name] for name in published), BEYOND, SCANS]
    return f"{order.index(title) + 1}  {title}"


@dataclass(frozen=True)
class Page:
    """A page of tables; `needs` are collected tables, or "support" (`support.rows`)."""

    name: str
    title: str
    caption: str
    needs: tuple[str, ...]


PAGES = {
    page.name: page
    for page in (
        Page(
            "claims",
            "The published claims",
            "Claims of the published studies, each with the statistic that decides it, what this "
            "run finds, and the verdict that follows: supported, contradicted, cannot be "
            "separated (the interval of the statistic holds both answers) or not run (the study "
            "has no cells for it). With other results the verdicts change.",
            ("claims",),
        ),
        Page(
            "results",
            "Results of every setting",
            "Scores on the test set, epsilon and cost of every dataset, model, mechanism and "
            "noise: mean [95 % interval]. Intervals are over patients, not images, and runs where "
            "there are several: that of one patient says nothing of others, and a single run has "
            "none. Epsilon is for one image; of noise on images it is that of all pixels, in "
            "brackets of one pixel of one channel. HD95 is over the classes that the prediction "
            "has: one that misses a class may have the better HD95, so read it with Dice.",
            ("summary", "privacy"),
        ),
        Page(
            "accuracy",
            "Accuracy of classification",
            "Percent of images of each part of the data: as published, at the best epoch of each "
            "part (chosen after the fact, of the test set too, which flatters), then at the last "
            "epoch; and the published numbers themselves. Constant is the commonest class of the "
            "training set for every image: what is not above it has learned nothing. 95 % "
            "intervals are over runs, not over patients; a single run has none.",
            ("summary",),
        ),
        Page(
            "cost",
            "Cost of every setting",
            "Milliseconds a step after warm-up, seconds an epoch, images a second and peak memory, "
            "and ratios to training without privacy of the same dataset and model. Without a GPU "
            "memory is that of the whole process, whose libraries and images bring its ratio "
            "closer to 1. Measured while other jobs may have run on the machine.",
            ("summary", "privacy"),
        ),
        Page(
            "comparisons",
            "Mechanisms compared in pairs",
            "Second minus first, on the same patients (times: in the same runs), with its 95 % "
            "interval; the larger p of a paired permutation test and of Student's of the interval, "
            "after Holm's correction for all of one dataset, network and noise, scores and times "
            "apart. The second is higher or lower where that p is below 0.05; else the two cannot "
            "be separated, which does not mean that they are equal. Single runs have neither "
            "interval nor p.",
            ("comparisons",),
        ),
        Page(
            "engines",
            "What each engine can do",
            "Clipping functions and styles that each mode of each private engine has, read from "
            "the registry that the configuration is checked against.",
            ("support",),
        ),
    )
}


def label(name: str) -> str:
    """What stands beside a page in its folder, numbered like `heading`."""
    return f"{list(PAGES).index(name) + 1}  {PAGES[name].title}"
