"""The claims of the published studies, each decided by the results of the study that ran.

One module or package a study. A claim is a function of the results, marked with `base.claim`, that
returns what was found, or None where the cells it takes were not run. Settings are recognised by
what they are (engine, mode, clipping, sparsification), not by the names of the configuration;
published data by their loader, whatever the dataset is called, and networks by name.
"""

from __future__ import annotations

import pandas as pd

from dpmedbench.claims import clipping, engines, local_dp
from dpmedbench.claims.base import Claim
from dpmedbench.claims.bookkeeping import budget, losses, times
from dpmedbench.results import Results

CLAIMS = tuple(
    claim
    for module in (budget, times, losses, local_dp, engines, clipping)
    for found in vars(module).values()
    for claim in (found if isinstance(found, tuple) else [found])
    if isinstance(claim, Claim)
)


def table(results: Results) -> pd.DataFrame:
    """A row a claim: id, study, source, claim, statistic, finding, value, low, high, verdict.

    `verdict` is "supported", "contradicted", "cannot be separated" or "not run" (`base.judge`);
    `value` is the statistic with its interval, NaN where there is none, and `finding` says it in
    words.
    """
    return pd.DataFrame([claim.row(results) for claim in CLAIMS])
