"""Intervals, paired tests and slopes.

Chance draws units: patients, and runs (a fold and seed). Both have effects of their own, and each
patient is seen by several runs or each run sees several patients. So each unit is left out once,
and the variances that this shows of the kinds are added: the jackknife (Efron & Stein 1981,
doi:10.1214/aos/1176345462) over both, as readers and cases of diagnostic studies are treated
(Dorfman, Berbaum & Metz 1992, doi:10.1097/00004424-199209000-00015). What a run and a patient have
together counts twice, which errs on the wide side. The interval is Student's, its degrees of
freedom those of Satterthwaite 1946 (doi:10.2307/3002019), near those of the kind that varies more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from dpmedbench import means

CONFIDENCE = 0.95
BLOCKS = 500  # of units: where there are more, some are left out together
GOLDEN = (1 + 5**0.5) / 2
ROUNDING = 1e-9  # of a statistic that does not change
ENUMERATED = 16  # units, of which every flip is looked at
FLIPS = 99_999
SEED = 20240229


def interval(
    statistic: Callable[..., np.ndarray],
    units: Sequence[np.ndarray],
    confidence: float = CONFIDENCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of the interval of `statistic` over units of `len(units)` kinds.

    Args:
        statistic: of an array (B, n) for each kind, how much each of its n counts in each of B
            tries, to values (..., B), NaN where a try defines none.
        units: for each kind, the numbers (n,) of the units, 0 to their largest, that its n belong
            to. NaN where no kind has two units.

    A unit counts where the statistic has a value of it; what cannot be left out, because the rest
    defines no value, stays in.
    """
    point, error, freedom = _error(statistic, units)
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * error
    reach = np.where(error == 0, 0, reach)
    return point - reach, point + reach


def mean_interval(
    frame: pd.DataFrame,
    value: str,
    levels: Sequence[str],
    units: Mapping[str, str] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[float, ...]:
    """A mean of means of a column, and the ends of its interval.

    Args:
        levels: columns, the innermost first. The mean is over what the first tells apart, within
            each of those of the second, and so on, so that a run counts once however many patients
            it tests.
        units: {level that chance draws: column with the unit that each of it belongs to}; unless
            given, each of every level is one.

    The ends are NaN where no column of `units` names two.
    """
    mean, drawn = _mean(frame, value, levels, units)
    point = mean(*(np.ones((1, len(kind))) for kind in drawn)).item()
    low, high = interval(mean, drawn, confidence)
    return point, float(low), float(high)


def mean_test(
    frame: pd.DataFrame, value: str, levels: Sequence[str], units: Mapping[str, str]
) -> float:
    """Two-sided p of "the mean of `mean_interval` is 0", below 0.05 where its interval is without;
    NaN where it has none."""
    point, error, freedom = _error(*_mean(frame, value, levels, units))
    if error == 0:
        return float(point == 0)
    return float(2 * stats.t.sf(abs(point) / error, freedom))


def largest_mean(frame: pd.DataFrame, value: str, group: str) -> tuple[float, float, float]:
    """The largest of the means of a column over the rows of each group, and the ends of its 95 %
    interval.

    The interval allows for the choice among the groups: each has Student's at a level that is
    corrected for their number (Bonferroni), and the largest of their ends are the ends. A group of
    a single row leaves the upper one open (inf); the ends are NaN where all are such.
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
    frame: pd.DataFrame,
    value: str,
    over: str,
    groups: Sequence[str],
    units: pd.Series | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """Least-squares slope of `value` over `over` and the ends of its interval.

    Each group (of equal values in the columns `groups`) has an intercept of its own. Where there
    are several `units` of chance, of which each group has one, each may have a slope of its own,
    and the interval is over them; else it is that of the regression. NaN ends where the residuals
    have no degree of freedom; all NaN where nothing varies.
    """
    import statsmodels.api as sm

    within = frame.groupby(list(groups), dropna=False)
    x, y = (frame[name] - within[name].transform("mean") for name in (over, value))
    if not within[over].transform(np.ptp).gt(0).any():
        return math.nan, math.nan, math.nan
    code = np.zeros(len(frame), int) if units is None else pd.factorize(units)[0]
    if code.any():
        both, square = (np.bincount(code, part) for part in (x * y, x * x))

        def of(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):  # where the rest does not vary
                return (weights @ both) / (weights @ square)

        low, high = interval(of, [np.arange(len(both))], confidence)
        return float(both.sum() / square.sum()), float(low), float(high)
    intercepts = pd.get_dummies(within.ngroup(), dtype=float).to_numpy()
    fit = sm.OLS(frame[value].to_numpy(float), np.column_stack([frame[over], intercepts])).fit()
    low, high = fit.conf_int(alpha=1 - confidence)[0] if fit.df_resid > 0 else (math.nan, math.nan)
    return float(fit.params[0]), float(low), float(high)


def _mean(
    frame: pd.DataFrame, value: str, levels: Sequence[str], units: Mapping[str, str] | None
) -> tuple[Callable[..., np.ndarray], list[np.ndarray]]:
    """The statistic and the units of `mean_interval`, as `interval` takes them."""
    units = {level: level for level in levels} if units is None else units
    codes = [pd.factorize(frame[level], sort=True)[0] for level in levels]
    shape = tuple(code.max() + 1 for code in codes)
    cell = np.ravel_multi_index(codes, shape)
    rows = np.bincount(cell, minlength=math.prod(shape))
    total = np.bincount(cell, frame[value].to_numpy(float), len(rows))
    table = np.where(rows > 0, total / np.maximum(rows, 1), np.nan).reshape(1, *shape)
    of_level = dict(zip(levels, codes, strict=True))
    drawn = [_of_each(of_level[level], frame[name]) for level, name in units.items()]

    def mean(*weights: np.ndarray) -> np.ndarray:
        given = dict(zip(units, weights, strict=True))
        found = table
        for level, size in zip(levels, shape, strict=True):
            found = means.weighted("bn...,bn->b...", found, given.get(level, np.ones((1, size))))
        return found

    return mean, drawn


def _error(
    statistic: Callable[..., np.ndarray], units: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A statistic, its standard error and the degrees of freedom, NaN where no kind has two
    units."""
    everything = [np.ones((1, len(kind))) for kind in units]
    point = statistic(*everything)[..., 0]
    found = [
        _left_out(statistic, everything, number, kind % BLOCKS)
        for number, kind in enumerate(units)
        if kind.max() > 0
    ]
    if not found:
        return point, point * np.nan, point * np.nan
    variance = sum(of_kind for of_kind, _ in found)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / sum(of_kind**2 / (known - 1) for of_kind, known in found)
    return point, np.sqrt(variance), freedom


def _left_out(
    statistic: Callable, everything: list[np.ndarray], number: int, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The jackknife's variance of a statistic over one kind of units, and the number of those that
    the statistic has a value of."""
    size = unit.max() + 1
    kept = (unit != np.arange(size)[:, None]).astype(float)

    def tries(own: np.ndarray) -> np.ndarray:
        weights = [np.broadcast_to(ones, (len(own), ones.shape[1])) for ones in everything]
        return statistic(*weights[:number], own, *weights[number + 1 :])

    # by uneven weights no unit is just where the mean is: what does not move it has no value
    uneven = 1 + np.modf(GOLDEN * np.arange(len(unit))[None])[0]
    values, moved, still = tries(kept), tries(kept * uneven), tries(uneven)
    with np.errstate(invalid="ignore"):  # infinite ones
        counts = np.abs(moved - still) > ROUNDING * np.abs(still)
        around = np.where(counts, values, np.nan)
        squares = np.nansum((around - means.plain(around, -1)[..., None]) ** 2, -1)
    known = counts.sum(-1)
    equal = (known == 0) & np.isfinite(values).all(-1)
    variance = np.where(known > 1, squares * (known - 1) / np.maximum(known, 1), np.nan)
    return np.where(equal, 0.0, variance), known


def _of_each(code: np.ndarray, unit: pd.Series) -> np.ndarray:
    """The number of the unit of each code, 0 to the largest, of rows with both."""
    return pd.factorize(unit.groupby(code).first(), sort=True)[0]
