"""Intervals, paired tests and slopes.

What is resampled are units: patients, and runs (a fold and seed). Both have effects of their own,
and each patient is seen by several runs or each run sees several patients, so that units of both
kinds are drawn with replacement, independently, and a value counts as often as its run times its
patient was drawn: the pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122), which errs on the
wide side. Few units make percentile intervals too narrow; they are expanded as if by Student's t
of the fewer units (Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from dpmedbench import means

CONFIDENCE = 0.95
WIDEST = 0.998  # so that the ends of an expanded interval are not single resamples
RESAMPLES = 2000
ENUMERATED = 16  # units, of which every flip is looked at
FLIPS = 99_999
SEED = 20240229


def interval(
    statistic: Callable[..., np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of the 95 % interval of `statistic` over units of `len(sizes)` kinds.

    Args:
        statistic: of an array (B, n) for each n of `sizes`, how often each unit counts in each of
            B resamples, to values (..., B), NaN where a resample defines none.
        sizes: numbers of units; a single unit always counts once. NaN where no kind has two.

    Repeatable: the draws depend on `sizes` alone.
    """
    several = [n for n in sizes if n > 1]
    if not several:
        nothing = np.full(statistic(*(np.ones((1, n)) for n in sizes)).shape[:-1], np.nan)
        return nothing, nothing

    def of_units(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        counts = (_counts(units, n) for units, n in zip(drawn, several, strict=True))
        ones = np.ones((len(drawn[0]), 1))
        return statistic(*(next(counts) if n > 1 else ones for n in sizes))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        draws = stats.bootstrap(
            [np.arange(n) for n in several],
            of_units,
            n_resamples=RESAMPLES,
            batch=500,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng([SEED, *sizes]),
        ).bootstrap_distribution
    tail = (1 - expanded(min(several))) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all undefined: NaN
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=-1)
    return low, high


def expanded(units: int) -> float:
    """The level of a percentile interval of `units` units that makes up for their small number."""
    t = stats.t.ppf((1 + CONFIDENCE) / 2, units - 1)
    return min(WIDEST, 1 - 2 * stats.norm.sf(t * math.sqrt(units / (units - 1))))


def mean_interval(
    frame: pd.DataFrame, value: str, levels: Sequence[str], drawn: Sequence[str] | None = None
) -> tuple[float, ...]:
    """A mean of means of a column, and the ends of its interval.

    Args:
        levels: columns that name units, the innermost first. The mean is over the units of the
            first, within each of those of the second, and so on, so that a run counts once however
            many patients it tests.
        drawn: the levels whose units are resampled; all unless given.

    The ends are NaN where no column of `drawn` names two units.
    """
    drawn = levels if drawn is None else drawn
    codes = [pd.factorize(frame[level], sort=True)[0] for level in levels]
    shape = tuple(code.max() + 1 for code in codes)
    sizes = dict(zip(levels, shape, strict=True))
    cell = np.ravel_multi_index(codes, shape)
    rows = np.bincount(cell, minlength=math.prod(shape))
    total = np.bincount(cell, frame[value].to_numpy(float), len(rows))
    table = np.where(rows > 0, total / np.maximum(rows, 1), np.nan).reshape(1, *shape)

    def mean(*weights: np.ndarray) -> np.ndarray:
        of_level = dict(zip(drawn, weights, strict=True))
        found = table
        for level, size in sizes.items():
            found = means.weighted("bn...,bn->b...", found, of_level.get(level, np.ones((1, size))))
        return found

    point = mean(*(np.ones((1, sizes[level])) for level in drawn)).item()
    low, high = interval(mean, [sizes[level] for level in drawn])
    return point, float(low), float(high)


def largest_mean(frame: pd.DataFrame, value: str, group: str) -> tuple[float, float, float]:
    """The largest of the means of a column over the rows of each group, and the ends of its 95 %
    interval.

    The interval allows for the choice among the groups: each has Student's, since a bootstrap of
    few rows has no ends so far out, at a level that is corrected for their number (Bonferroni),
    and the largest of their ends are the ends. A group of a single row leaves the upper one open
    (inf); the ends are NaN where all are such.
    """
    groups = frame.groupby(group)[value]
    mean = groups.mean()
    tail = (1 - CONFIDENCE) / 2 / groups.ngroups
    reach = (stats.t.isf(tail, groups.size() - 1) * groups.sem()).fillna(math.inf)
    if np.isinf(reach).all():
        return float(mean.max()), math.nan, math.nan
    return float(mean.max()), float((mean - reach).max()), float((mean + reach).max())


def paired_test(differences: Sequence[float]) -> float:
    """Two-sided p of "the differences of the units lie around 0", NaN for fewer than two.

    A sign-flip permutation test of the mean: every flip for up to 16 units, else 99,999 random
    ones, the one that was seen counting among them (Phipson & Smyth 2010,
    doi:10.2202/1544-6115.1585). `smallest` is the smallest p there is.
    """
    values = np.asarray(differences, float)
    if len(values) < 2:
        return math.nan
    # the rounding of sums, which are equal in exact numbers
    seen = abs(values.sum()) - 100 * np.finfo(float).eps * np.abs(values).sum()
    if len(values) <= ENUMERATED:
        sums = np.zeros(1)
        for one in values:
            sums = np.concatenate([sums + one, sums - one])
        return float((np.abs(sums) >= seen).mean())
    rng = np.random.default_rng([SEED, len(values)])
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    eights = np.pad(values, (0, -len(values) % 8)).reshape(-1, 8)
    sums = np.zeros(FLIPS)
    for eight in eights:  # a random byte flips eight units
        sums += (signs @ eight)[rng.integers(0, 256, FLIPS, np.uint8)]
    return float((1 + (np.abs(sums) >= seen).sum()) / (1 + FLIPS))


def smallest(units: int) -> float:
    """The smallest p that `paired_test` can find for so many units."""
    return 2.0 ** (1 - units) if units <= ENUMERATED else 1 / (1 + FLIPS)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979); NaN, which counts as none, stays."""
    from statsmodels.stats.multitest import multipletests

    adjusted = np.array(p, float)
    known = np.isfinite(adjusted)
    if known.any():
        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted


def slope(
    frame: pd.DataFrame, value: str, over: str, groups: Sequence[str]
) -> tuple[float, float, float]:
    """Least-squares slope of `value` over `over` and its 95 % interval.

    Each group (of equal values in the columns `groups`) has an intercept of its own. NaN ends
    where the residuals have no degree of freedom; all NaN where nothing varies.
    """
    import statsmodels.api as sm

    if not frame.groupby(list(groups), dropna=False)[over].transform(np.ptp).gt(0).any():
        return math.nan, math.nan, math.nan
    group = pd.MultiIndex.from_frame(frame[list(groups)]).factorize()[0]
    intercepts = pd.get_dummies(group, dtype=float).to_numpy()
    values = frame[[value, over]].to_numpy(float)
    fit = sm.OLS(values[:, 0], np.column_stack([values[:, 1], intercepts])).fit()
    low, high = fit.conf_int(alpha=1 - CONFIDENCE)[0] if fit.df_resid > 0 else (math.nan, math.nan)
    return float(fit.params[0]), float(low), float(high)


def _counts(drawn: np.ndarray, number: int) -> np.ndarray:
    """How often each of `number` units is in each row of `drawn` (B, n): (B, number)."""
    rows = number * np.arange(len(drawn))[:, None]
    return np.bincount((drawn + rows).ravel(), minlength=len(drawn) * number).reshape(-1, number)
