"""Do the intervals and tests of a robustness report keep what they promise? Simulated datasets with a known truth.

    make coverage

Groups are drawn from a population: their size, difficulty and class shares differ, so rows of a group resemble each
other. The truth of a metric is its value on the whole population. Counted is how often the 95 % interval holds it, how
often the paired test calls two equal models different at 5 %, and how often any of seven such tests does after Holm.
All datasets of a size are worked on at once, by the functions of the product; tests/robustness/test_coverage.py holds
them against one dataset at a time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

import numpy as np
from scipy import stats

from bench.rows import Row
from mcutune.domain.task import Task
from mcutune.robustness.evidence import Array
from mcutune.robustness.paired import mean_over_replicates, per_cell
from mcutune.robustness.statistics import (
    BOOTSTRAP_FROM,
    Resampling,
    Statistic,
    bootstrap,
    effective_groups,
    expanded_tail,
    holm,
    jackknife_errors,
    outermost,
    permutation_test,
    t_bounds,
)
from mcutune.robustness.sums import FROM_SUMS, unit_sums

GROUPS = (8, 10, 12, 20, 29, 30, 50, 100)
CLASSES, VALUES = ("wa", "ua", "f1"), ("mae", "pearson", "acc2", "f1_nonzero")
SCALES = {"mae": "positive", "pearson": "correlation"}
K, FAMILY = 4, 7
_AT_ONCE = 40  # datasets
_SHARES = np.array([0.4, 0.3, 0.2, 0.1])
_BASE = np.array([0.8, 0.2, 0.5, -0.3])  # log odds of the right class
_WRONG = np.array([[0, 0.5, 0.3, 0.2], [0.5, 0, 0.3, 0.2], [0.6, 0.3, 0, 0.1], [0.4, 0.4, 0.2, 0]])


@dataclass(frozen=True)
class World:
    """A population of groups. `size`: median rows; `uneven`: deviation of its logarithm; `skill`: added log odds;
    `spread`: deviation of a group's log odds; `linked`: correlation of size and skill; `alike`: share of groups in
    which two models that are compared are one and the same, as in folds whose winner is the default."""

    size: float = 60
    uneven: float = 0.6
    skill: float = 0.6
    spread: float = 0.5
    linked: float = 0.0
    alike: float = 0.0


WORLDS = {
    "speakers": World(),
    "uneven": World(uneven=0.8),
    "uneven, size and skill linked": World(uneven=0.8, linked=0.5),
    "high accuracy": World(skill=2.5),
    "short dialogues": World(size=12, uneven=0.5),
}
EQUAL = "short dialogues of equal length"  # counts of rows tie most, and the groups' own differences tell none apart
ALIKE = "speakers, half of them predicted alike"
TEST_WORLDS = {**WORLDS, EQUAL: World(size=12, uneven=0.0), ALIKE: World(alike=0.5)}
TESTED = [(world, 10) for world in (*WORLDS, EQUAL)] + [(world, 30) for world in ("speakers", "short dialogues")]
TESTED += [(ALIKE, 12), (ALIKE, 20)]  # 6 and 10 that differ


def draw_groups(world: World, groups: int, random: np.random.Generator) -> tuple[Array, Array, Array]:
    """Rows [G], class shares [G, K] and difficulty [G] of groups."""
    difficulty = random.standard_normal(groups)
    luck = random.standard_normal(groups)
    size = world.linked * difficulty + np.sqrt(1 - world.linked**2) * luck
    rows = np.maximum(5, np.exp(np.log(world.size) + world.uneven * size)).astype(np.int64)
    return rows, random.dirichlet(8 * _SHARES, size=groups), difficulty


def cell_shares(world: World, shares: Array, difficulty: Array) -> Array:
    """Probabilities of (truth, predicted), [G, K, K]."""
    right = 1 / (1 + np.exp(-(_BASE + world.skill + world.spread * difficulty[:, None])))
    cells = _WRONG * (1 - right)[:, :, None]
    cells[:, np.arange(K), np.arange(K)] = right
    return shares[:, :, None] * cells


def class_sums(world: World, groups: int, datasets: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Confusion sums [G, 1, datasets, K·K], and rows a group [G, datasets]."""
    rows, shares, difficulty = draw_groups(world, groups * datasets, random)
    cells = cell_shares(world, shares, difficulty).reshape(len(rows), -1)
    sums = random.multinomial(rows, cells / cells.sum(axis=1, keepdims=True)).astype(np.float64)
    return sums.reshape(groups, 1, datasets, -1), rows.reshape(groups, datasets)


def value_sums(world: World, groups: int, datasets: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Sums [G, 1, datasets, A] of values, and rows a group: noise and offset of predictions differ by group."""
    rows, _, difficulty = draw_groups(world, groups * datasets, random)
    unit = np.repeat(np.arange(len(rows)), rows)
    mood = 0.5 * random.standard_normal(len(rows))
    truth = np.where(random.random(len(unit)) < 0.1, 0, random.normal(mood[unit], 1))
    noise = np.exp(0.3 * difficulty)[unit] * random.standard_normal(len(unit))
    predicted = 0.7 * truth + 0.3 * mood[unit] + noise
    sums = unit_sums(predicted[None, None], truth, unit, len(rows), Task.REGRESSION, 1)
    return sums.reshape(groups, 1, datasets, -1), rows.reshape(groups, datasets)


@cache
def truth_of(world: World, values: bool) -> dict[str, float]:
    """Every metric on a population of 200,000 groups, in ten parts."""
    random, draw = np.random.default_rng(1), value_sums if values else class_sums
    totals = [draw(world, 20_000, 1, random)[0].sum(axis=0)[0, 0] for _ in range(10)]
    return {
        metric: float(np.mean([FROM_SUMS[metric](one) for one in totals])) for metric in (VALUES if values else CLASSES)
    }


def statistics_of(metrics: tuple[str, ...]) -> list[Statistic]:
    return [Statistic(mean_over_replicates(m), SCALES.get(m, "fraction")) for m in metrics]


def bounds_of_many(sums: Array, rows: Array, metrics: tuple[str, ...], how: Resampling) -> list[tuple[Array, Array]]:
    """Bounds [datasets] of each metric from sums [G, 1, datasets, A]: those that `intervals` gives one by one.

    All datasets share the resamples' weights, as any two datasets of a size do in the product.
    """
    found = statistics_of(metrics)
    freedom = np.maximum(1.0, np.array([effective_groups(one) for one in rows.T]) - 1)
    values = [statistic.function(sums.sum(axis=0)) for statistic in found]
    parts = zip(found, values, jackknife_errors(sums, found), strict=True)
    by_t = [t_bounds(value, error, one.scale, freedom, how.confidence) for one, value, error in parts]
    if len(sums) < BOOTSTRAP_FROM:
        return by_t
    tail = expanded_tail(len(sums), freedom, how.confidence)
    drawn = bootstrap(sums, found, how.resamples, how.seed)
    ordered = [np.sort(one, axis=0) for one in drawn]
    by_resamples = [(_quantile(one, tail), _quantile(one, 1 - tail)) for one in ordered]
    return [outermost(one, other) for one, other in zip(by_resamples, by_t, strict=True)]


def _quantile(ordered: Array, share: Array) -> Array:
    """Of each column of sorted values [B, D] the quantile `share` [D], with linear interpolation."""
    at = share * (len(ordered) - 1)
    below = np.floor(at).astype(np.int64)
    above, column = np.minimum(below + 1, len(ordered) - 1), np.arange(ordered.shape[1])
    low: Array = ordered[below, column]
    return low + (at - below) * (ordered[above, column] - low)


def coverage(world: World, groups: int, datasets: int, values: bool, how: Resampling) -> dict[str, float]:
    """How often the interval of each metric holds the truth."""
    random, draw = np.random.default_rng([7, groups, values]), value_sums if values else class_sums
    truth = truth_of(world, values)
    hits = dict.fromkeys(truth, 0)
    for start in range(0, datasets, _AT_ONCE):
        sums, rows = draw(world, groups, min(_AT_ONCE, datasets - start), random)
        for metric, (low, high) in zip(truth, bounds_of_many(sums, rows, tuple(truth), how), strict=True):
            hits[metric] += int(((low <= truth[metric]) & (truth[metric] <= high)).sum())
    return {metric: hit / datasets for metric, hit in hits.items()}


def equal_models(world: World, groups: int, cells: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Sums [G, 1, C, K·K] of two models that are equally good on the population, on the same rows.

    Each has its own luck with every group, and half of the rows are predicted alike by both.
    """
    rows, shares, difficulty = draw_groups(world, groups, random)
    both = np.zeros((2, groups, 1, cells, K * K))
    cell = cell_shares(world, shares, difficulty).reshape(groups, -1)
    cell /= cell.sum(axis=1, keepdims=True)
    for c in range(cells):
        alike = random.binomial(rows, 0.5)
        common = random.multinomial(alike, cell)
        counts = random.multinomial(rows - alike, shares)  # truth of the other rows, the same for both models
        for model in range(2):
            luck = difficulty + 0.5 * random.standard_normal(groups)
            given = cell_shares(world, shares, luck) / shares[:, :, None]
            other = random.multinomial(counts, given / given.sum(axis=2, keepdims=True))
            both[model, :, 0, c] = common + other.reshape(groups, -1)
    same = round(world.alike * groups)
    both[1, :same] = both[0, :same]
    return both[0], both[1]


def false_alarms(world: World, groups: int, datasets: int, how: Resampling, cells: int = FAMILY) -> dict[str, float]:
    """How often a paired test, and the family of `cells` after Holm, call equal models different at 5 %."""
    random = np.random.default_rng([11, groups, cells])
    single, family = dict.fromkeys(CLASSES, 0), dict.fromkeys(CLASSES, 0)
    for start in range(0, datasets, _AT_ONCE):
        count = min(_AT_ONCE, datasets - start)
        pairs = [equal_models(world, groups, cells, random) for _ in range(count)]
        a, b = (np.concatenate(one, axis=2) for one in zip(*pairs, strict=True))
        found, _ = permutation_test(a, b, list(per_cell(CLASSES, a.shape[2]).values()), seed=how.seed)
        for metric, p in zip(CLASSES, found, strict=True):
            single[metric] += int((p <= 0.05).sum())
            family[metric] += sum(min(holm(one.tolist())) <= 0.05 for one in p.reshape(count, cells))
    named = {metric: one / (datasets * cells) for metric, one in single.items()}
    return named | {f"{metric}, Holm": one / datasets for metric, one in family.items()}


def upper_bound(rate: float, datasets: int) -> float:
    """Exact one-sided upper 95 % bound of a rate (Clopper and Pearson)."""
    return float(stats.beta.ppf(0.95, rate * datasets + 1, datasets - rate * datasets))


@dataclass(frozen=True)
class _Task:
    """One size of one world: how many datasets, and whether intervals of values, of classes, or tests."""

    what: str
    world: str
    groups: int
    datasets: int

    def __call__(self) -> list[Row]:
        start = time.perf_counter()
        rows = _WHAT[self.what](self)
        print(
            f"  {self.what}, {self.world}, {self.groups} groups: {time.perf_counter() - start:.0f} s", file=sys.stderr
        )
        return rows


def _coverage_rows(task: _Task) -> list[Row]:
    values = task.what == "values"
    rates = coverage(WORLDS[task.world], task.groups, task.datasets, values, Resampling())
    low, high = (0.94, 0.96) if task.groups >= BOOTSTRAP_FROM else (0.93, 1.0)
    goal = "94 to 96 %" if task.groups >= BOOTSTRAP_FROM else "≥ 93 %"
    return [
        _row(task, f"{metric} inside", rate, "" if values else goal, None if values else low <= rate <= high)
        for metric, rate in rates.items()
    ]


def _test_rows(task: _Task) -> list[Row]:
    world = TEST_WORLDS[task.world]
    single = false_alarms(world, task.groups, task.datasets, Resampling(), cells=1)
    low, goal = (0.0, "≤ 6 %") if world.alike else (0.04, "4 to 6 %")  # p of 6 groups comes in few steps
    some = max(1, task.datasets * 2 // 5)
    family = false_alarms(world, task.groups, some, Resampling())
    rows = []
    for metric in CLASSES:
        rate, among = single[metric], family[f"{metric}, Holm"]
        bound = upper_bound(among, some)
        rows.append(_row(task, f"{metric}, equal models told apart", rate, goal, low <= rate <= 0.06))
        note = f"{some:,} datasets; upper 95 % bound {bound:.4f}"
        rows.append(_row(task, f"{metric}, any of {FAMILY} after Holm", among, "bound ≤ 6 %", bound <= 0.06, note))
    return rows


_WHAT: dict[str, Callable[[_Task], list[Row]]] = {
    "classes": _coverage_rows,
    "values": _coverage_rows,
    "tests": _test_rows,
}


def _row(task: _Task, name: str, rate: float, goal: str, met: bool | None, note: str = "") -> Row:
    return Row(
        "coverage", f"{task.world}, {task.groups} groups: {name}", rate, "of datasets", goal=goal, met=met,
        note=note or f"{task.datasets:,} datasets",
    )  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """Every size of every world, on all cores."""
    datasets = 200 if quick else 10_000
    tasks = [_Task("tests", world, groups, datasets) for world, groups in reversed(TESTED)]
    tasks += [
        _Task(what, world, groups, datasets if what == "classes" else datasets // 5)
        for groups in sorted(GROUPS, reverse=True)
        for world in WORLDS
        for what in ("classes", "values")
    ]
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by the workers when they start: a process a core
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        found = list(pool.map(_run, tasks))
    return [row for rows in found for row in rows]


def _run(task: _Task) -> list[Row]:
    return task()
