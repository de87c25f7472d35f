"""Intervals and tests over groups, from the additive sums of mcutune.robustness.sums.

Axes: G groups, S replicates, C cells, A components, Q quantities of a statistic. Groups, not rows, are the independent
units: rows of one speaker resemble each other. Which method covers what it promises: bench/coverage.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse, special, stats

Array = npt.NDArray[Any]

BOOTSTRAP_FROM, INTERVAL_FROM = 30, 8  # groups
BOOTSTRAP = "bootstrap over groups, expanded percentile, no narrower than t"
T_JACKKNIFE = "t over groups (jackknife)"
TOO_FEW = f"none: fewer than {INTERVAL_FROM} groups"
NO_SPREAD = "none: no spread between groups"
ALL_PATTERNS, DRAWN_PATTERNS = (
    "group permutation, all patterns, ties at mid-rank",
    "group permutation, ties at mid-rank",
)
MCNEMAR = "McNemar, exact"
_ALL_UP_TO = 14  # groups: 8,192 patterns of signs
_BLOCK = 1 << 22  # numbers worked on at once
_SPARSE_BELOW = 0.1  # share of sums that are not zero
_NEAR, _SMALL = 1e-9, 1e-3  # relative rounding of differences, and the size below which it is absolute


@dataclass(frozen=True)
class Statistic:
    """Quantities as a function of totals: [.., S, C, A] to [.., Q].

    `scale`: where they are treated as symmetric: `fraction` (logit), `correlation` (Fisher's z), `positive` (log), or
    `difference` (as they are). `cells`: weights [Q, C] of the cells that each quantity is made of, whose rows then say
    how uneven its groups are; where None, all cells count alike.
    """

    function: Callable[[Array], Array]
    scale: str = "difference"
    cells: Array | None = None


@dataclass(frozen=True)
class Interval:
    """Value, bounds (NaN where there is none), jackknife standard error and its degrees of freedom, [Q] each; the
    method of each quantity."""

    value: Array
    low: Array
    high: Array
    error: Array
    method: list[str]
    freedom: Array


@dataclass(frozen=True)
class Resampling:
    """How bounds are made: confidence, number of resamples, seed of the resamples (the same for every statistic)."""

    confidence: float = 0.95
    resamples: int = 4000
    seed: int = 0


def effective_groups(rows: Array) -> float:
    """Kish's number of equal groups that are worth these unequal ones, from rows a group [G]: (Σn)² / Σn²."""
    return float(rows.sum() ** 2 / (rows.astype(np.float64) ** 2).sum())


def intervals(
    sums: Array, rows: Array, statistics: Sequence[Statistic], how: Resampling | None = None
) -> list[Interval]:
    """An interval for every statistic, all from the same resamples. `sums` [G, S, C, A]; `rows` [G] or [G, C], rows of
    a group, in each cell.

    Below 8 groups none. From 8 on a jackknife standard error and Student's t; from 30 on the expanded percentile
    bootstrap, each bound moved outward to that of t where it lies inside (it covers .93 where groups are few, their
    sizes uneven and values near 1). The degrees of freedom are those of the effective number of groups, which repairs
    the bounds where groups differ in size.
    """
    how = how or Resampling()
    groups, total = len(sums), sums.sum(axis=0)
    values = [statistic.function(total) for statistic in statistics]
    freedoms = [_freedom(rows, statistic, value) for statistic, value in zip(statistics, values, strict=True)]
    errors = jackknife_errors(sums, statistics)
    if groups < INTERVAL_FROM:
        bounds = [(np.full_like(value, np.nan),) * 2 for value in values]
        method = TOO_FEW
    else:
        parts = zip(statistics, values, errors, freedoms, strict=True)
        bounds = [t_bounds(value, error, s.scale, freedom, how.confidence) for s, value, error, freedom in parts]
        method = T_JACKKNIFE
    if groups >= BOOTSTRAP_FROM:
        drawn = _bootstrap_bounds(sums, statistics, freedoms, how)
        bounds = [outermost(one, other) for one, other in zip(drawn, bounds, strict=True)]
        method = BOOTSTRAP
    return [
        _interval(value, *bound, error, method, freedom)
        for value, bound, error, freedom in zip(values, bounds, errors, freedoms, strict=True)
    ]


def _freedom(rows: Array, statistic: Statistic, value: Array) -> Array:
    """Degrees of freedom of each quantity [Q]: of those rows that it is made of."""
    rows = rows.reshape(len(rows), -1)
    weights = np.ones((1, rows.shape[1])) if statistic.cells is None else statistic.cells
    found = [effective_groups(rows @ one) - 1 for one in weights]
    return np.broadcast_to(np.maximum(1.0, found), value.shape)


def outermost(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """The lower of two lower bounds and the higher of two upper ones; one that is not known does not count."""
    return np.fmin(one[0], other[0]), np.fmax(one[1], other[1])


def _interval(value: Array, low: Array, high: Array, error: Array, method: str, freedom: Array) -> Interval:
    still = error <= 1e-12
    methods = [NO_SPREAD if method != TOO_FEW and none else method for none in still]
    return Interval(value, np.where(still, np.nan, low), np.where(still, np.nan, high), error, methods, freedom)


def jackknife_errors(sums: Array, statistics: Sequence[Statistic]) -> list[Array]:
    """Standard errors [Q] of each statistic by leaving one group out; 0 with one group."""
    groups, total = len(sums), sums.sum(axis=0)
    if groups < 2:
        return [np.zeros_like(statistic.function(total)) for statistic in statistics]
    left: list[list[Array]] = [[] for _ in statistics]
    sums = np.moveaxis(np.ascontiguousarray(np.moveaxis(sums, 0, -1)), -1, 0)  # groups run fastest in memory
    for part in _chunks(groups, sums[0].size):
        without = total - sums[part]
        for values, statistic in zip(left, statistics, strict=True):
            values.append(statistic.function(without))
    return [_jackknife_error(np.concatenate(values)) for values in left]


def _jackknife_error(left: Array) -> Array:
    """From the statistic without each group, [G, Q]. Leaving out the only rows of a metric gives NaN: not counted."""
    groups, known = len(left), np.isfinite(left)
    mean = np.where(known, left, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.sqrt((groups - 1) / groups * np.where(known, (left - mean) ** 2, 0).sum(axis=0))


def t_bounds(value: Array, error: Array, scale: str, freedom: float | Array, confidence: float) -> tuple[Array, Array]:
    """Bounds by Student's t on the scale given; the standard error is carried there by the delta method."""
    t = stats.t.ppf(0.5 + confidence / 2, freedom)
    to, back, slope = _SCALES[scale]
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = t * error * slope(value)
        return back(to(value) - reach), back(to(value) + reach)


# Scale: there, back, and the derivative of there.
_SCALES: dict[str, tuple[Callable[[Array], Array], ...]] = {
    "fraction": (special.logit, special.expit, lambda x: 1 / (x * (1 - x))),
    "correlation": (np.arctanh, np.tanh, lambda x: 1 / (1 - x**2)),
    "positive": (np.log, np.exp, lambda x: 1 / x),
    "difference": (lambda x: x, lambda x: x, np.ones_like),
}


def _bootstrap_bounds(
    sums: Array, statistics: Sequence[Statistic], freedoms: Sequence[Array], how: Resampling
) -> list[tuple[Array, Array]]:
    """Percentiles, moved outward as far as Student's t and the bootstrap's bias ask (Hesterberg 2015, section 5.3)."""
    drawn = bootstrap(sums, statistics, how.resamples, how.seed)
    found = []
    for values, freedom in zip(drawn, freedoms, strict=True):
        tails, bounds = expanded_tail(len(sums), freedom, how.confidence), np.empty((2, len(freedom)))
        for tail in np.unique(tails):
            same = tails == tail
            bounds[:, same] = np.nanquantile(values[:, same], [tail, 1 - tail], axis=0)
        found.append((bounds[0], bounds[1]))
    return found


def expanded_tail(groups: int, freedom: Any, confidence: float) -> Array:
    """The share of resamples left out at either end, smaller than (1 − confidence) / 2; of `freedom` [..]."""
    t = stats.t.ppf(0.5 + confidence / 2, freedom)
    tail: Array = stats.norm.cdf(-np.sqrt(groups / (groups - 1)) * t)
    return tail


def bootstrap(sums: Array, statistics: Sequence[Statistic], resamples: int, seed: int) -> list[Array]:
    """Each statistic of each resample of groups, [resamples, Q]: multinomial weights [B, G] @ sums [G, S·C·A]."""
    weighted = _weighting(sums)
    drawn: list[list[Array]] = [[] for _ in statistics]
    for weights in _weights(len(sums), sums[0].size, resamples, seed):
        totals = weighted(weights)
        for values, statistic in zip(drawn, statistics, strict=True):
            values.append(statistic.function(totals))
    return [np.concatenate(values) for values in drawn]


def _weighting(sums: Array) -> Callable[[Array], Array]:
    """Weights [B, G] to weighted totals [B, ...] of sums [G, ...]; sparse where groups are small and classes many.

    In memory B runs fastest, so that what follows works along B and not along the few classes.
    """
    flat = np.moveaxis(sums, 0, -1).reshape(-1, len(sums))
    many = np.count_nonzero(flat) > _SPARSE_BELOW * flat.size
    factor = np.ascontiguousarray(flat) if many else sparse.csr_array(flat)
    return lambda weights: np.moveaxis((factor @ weights.T).reshape(*sums.shape[1:], -1), -1, 0)


def _weights(groups: int, width: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each group is drawn, float64 [B, G], in pieces fit for sums of a width."""
    for stream, count in _streams(resamples, groups, (seed, 0)):
        drawn = stream.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        often = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)
        yield from (often[part] for part in _chunks(count, width))


def _streams(count: int, groups: int, seed: tuple[int, int]) -> Iterator[tuple[np.random.Generator, int]]:
    """Pieces of `count` draws of groups with a random stream each. Never of how much is computed from a draw: what is
    measured beside a cell would then change its bounds."""
    for number, part in enumerate(_chunks(count, groups)):
        yield np.random.Generator(np.random.Philox(np.random.SeedSequence([*seed, number]))), part.stop - part.start


def _chunks(count: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def permutation_test(
    a: Array, b: Array, statistics: Sequence[Statistic], *, permutations: int = 9999, seed: int = 0
) -> tuple[list[Array], str]:
    """Two-sided p [Q] of each statistic that models a and b are exchangeable, and the test's name.

    `a`, `b`: sums [G, S, C, A] of the same rows. All predictions of a group are swapped between the models together;
    what is compared is the difference of the pooled values, and where that is equal (counts of rows often are), the
    mean of the groups' own differences. p is the rank of what was observed, the most extreme being 1, among all
    patterns that differ, 2^(D − 1), where D groups, up to 14, have other sums in `a` than in `b`: swapping the others
    moves nothing, as in a sign test, which drops zeros. With more, it is the rank among patterns drawn and the observed
    one. D is of all cells; a pattern that only swaps groups whose sums are equal in the cells of a quantity
    (`Statistic.cells`) is the observed one once more and counts whole, which gives the p of the other groups alone (but
    whether patterns are drawn, what is measured beside it decides too).

    Patterns that are still tied (a group in which both models get as many right doubles them) share the mean of their
    ranks, which is Lancaster's mid-p (1961; Hwang and Yang 2001) with the observed pattern counted whole (as Phipson
    and Smyth 2010 ask), so no p of all patterns is below 2^(1 − D), D the groups that differ in its cells. Without ties
    the test is exact. With them its level is near the nominal one instead of far below, and not bounded by it:
    bench/coverage.py measures it. Equal pooled values: p is 1.
    """
    half, middle = (a - b) / 2, (a + b).sum(axis=0) / 2
    totals = a.sum(axis=0), b.sum(axis=0)
    observed = [np.abs(s.function(totals[0]) - s.function(totals[1])) for s in statistics]
    moving = half.any(axis=(1, 2, 3))
    if not moving.any():
        return [np.ones(one.shape) for one in observed], ALL_PATTERNS
    half, every = half[moving], moving.sum() <= _ALL_UP_TO
    weighted, differ = _weighting(half), [_differ(half, s) for s in statistics]
    of_groups = [np.nan_to_num(s.function(a) - s.function(b), posinf=0, neginf=0)[moving] for s in statistics]
    second = [np.abs(one.sum(axis=0)) for one in of_groups]
    above, count = [np.zeros(one.shape) for one in observed], 0
    # Drawn for all groups and then chosen from: what does not move changes no p.
    drawn = (part[:, moving] for part in _drawn_signs(len(a), half[0].size, permutations, seed))
    for signs in _every_sign(len(half)) if every else drawn:
        moved = weighted(signs)
        one, other = middle + moved, middle - moved
        count += len(signs)
        for s, statistic in enumerate(statistics):
            apart = np.abs(statistic.function(one) - statistic.function(other))
            above[s] += _above(apart, observed[s], np.abs(signs @ of_groups[s]), second[s])
            above[s] += _same(signs, differ[s]) / 2
    # The observed pattern is among all patterns, and not among those drawn.
    found = [one / count if every else (one + 1) / (count + 1) for one in above]
    p = [np.where(one > _NEAR * _SMALL, rank, 1.0) for one, rank in zip(observed, found, strict=True)]
    return p, ALL_PATTERNS if every else DRAWN_PATTERNS


def _differ(half: Array, statistic: Statistic) -> Array:
    """Which groups differ between two models in the cells of each quantity, 0 or 1, [G, Q] or, if in all, [G, 1]."""
    cells = half.any(axis=(1, 3)).astype(np.float64)
    weights = np.ones((1, cells.shape[1])) if statistic.cells is None else statistic.cells
    return (cells @ (weights != 0).T > 0).astype(np.float64)


def _same(signs: Array, differ: Array) -> Array:
    """How many patterns [B, G] are the observed one, or its mirror, in the groups that differ [G, Q]: tied with it, of
    which `_above` has counted half."""
    same: Array = (np.abs(signs @ differ) == differ.sum(axis=0)).sum(axis=0)
    return same


def _above(first: Array, observed: Array, second: Array, own: Array) -> Array:
    """How many patterns [B, Q] are more extreme than observed [Q], by the first difference and then by the second;
    half of those tied in both. Equal but for rounding is equal."""
    slack, own_slack = (_NEAR * np.maximum(one, _SMALL) for one in (observed, own))
    level = first >= observed - slack
    more = (first > observed + slack) | (level & (second > own + own_slack))
    tied = level & ~more & (second >= own - own_slack)
    found: Array = more.sum(axis=0) + tied.sum(axis=0) / 2
    return found


def _every_sign(groups: int) -> Iterator[Array]:
    """All patterns of ±1, [B, G], with the first sign fixed: a mirrored pattern has the same absolute difference."""
    for part in _chunks(2 ** (groups - 1), _BLOCK >> 8):
        yield 1.0 - 2.0 * (np.arange(part.start, part.stop)[:, None] >> np.arange(groups) & 1)


def _drawn_signs(groups: int, width: int, permutations: int, seed: int) -> Iterator[Array]:
    for stream, count in _streams(permutations, groups, (seed, 1)):
        signs = 1.0 - 2.0 * stream.integers(2, size=(count, groups))
        yield from (signs[part] for part in _chunks(count, width))


def mcnemar(right_a: Array, right_b: Array) -> float:
    """Exact two-sided McNemar p from which rows each model gets right, bool [N]; rows must be independent."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted over their family by Holm's method.

    Equal to statsmodels' multipletests (tested), which collects garbage three times a call: 0.1 to 1 s each beside
    torch, for every family of a report.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return [float(value) for value in adjusted]


def detectable(error: float, freedom: float, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at this standard error finds with the power given."""
    return float(error * (stats.t.ppf(0.5 + confidence / 2, freedom) + stats.t.ppf(power, freedom)))
