"""Do the intervals and tests of a robustness report keep what they promise? Simulated datasets with a known truth.

    python bench/coverage.py --datasets 1000 --out coverage.json

Groups are drawn from a population: their size, difficulty and class shares differ, so rows of a group resemble each
other. The truth of a metric is its value on the whole population. Counted is how often the 95 % interval holds it, how
often the paired test calls two equal models different at 5 %, and how often any of seven such tests does after Holm.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.domain.task import Task
from mcutune.files import write_json
from mcutune.robustness.evidence import Array
from mcutune.robustness.paired import compare_sums, mean_over_replicates
from mcutune.robustness.statistics import Resampling, Statistic, intervals
from mcutune.robustness.sums import FROM_SUMS, unit_sums

GROUPS = (8, 10, 14, 20, 29, 30, 50, 100)
CLASSES, VALUES = ("wa", "ua", "f1"), ("mae", "pearson", "acc2", "f1_nonzero")
SCALES = {"mae": "positive", "pearson": "correlation"}
K = 4
_SHARES = np.array([0.4, 0.3, 0.2, 0.1])
_BASE = np.array([0.8, 0.2, 0.5, -0.3])  # log odds of the right class
_WRONG = np.array([[0, 0.5, 0.3, 0.2], [0.5, 0, 0.3, 0.2], [0.6, 0.3, 0, 0.1], [0.4, 0.4, 0.2, 0]])


@dataclass(frozen=True)
class World:
    """A population of groups. `size`: median rows; `uneven`: deviation of its logarithm; `skill`: added log odds;
    `spread`: deviation of a group's log odds; `linked`: correlation of size and skill."""

    size: float = 60
    uneven: float = 0.6
    skill: float = 0.6
    spread: float = 0.5
    linked: float = 0.0


WORLDS = {
    "speakers": World(),
    "uneven": World(uneven=0.8),
    "uneven, size and skill linked": World(uneven=0.8, linked=0.5),
    "high accuracy": World(skill=2.5),
    "short dialogues": World(size=12, uneven=0.5),
}


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


def class_sums(world: World, groups: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Confusion sums [G, 1, 1, K·K] of one dataset, and its rows a group."""
    rows, shares, difficulty = draw_groups(world, groups, random)
    cells = cell_shares(world, shares, difficulty).reshape(groups, -1)
    sums = random.multinomial(rows, cells / cells.sum(axis=1, keepdims=True)).astype(np.float64)
    return sums[:, None, None], rows


def value_sums(world: World, groups: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Sums [G, 1, 1, A] of one dataset of values, and its rows a group: noise and offset of predictions by group."""
    rows, _, difficulty = draw_groups(world, groups, random)
    unit = np.repeat(np.arange(groups), rows)
    mood = 0.5 * random.standard_normal(groups)
    truth = np.where(random.random(len(unit)) < 0.1, 0, random.normal(mood[unit], 1))
    noise = np.exp(0.3 * difficulty)[unit] * random.standard_normal(len(unit))
    predicted = 0.7 * truth + 0.3 * mood[unit] + noise
    return unit_sums(predicted[None, None], truth, unit, groups, Task.REGRESSION, 1), rows


@cache
def truth_of(world: World, values: bool) -> dict[str, float]:
    """Every metric on a population of 200,000 groups, in ten parts."""
    random, draw = np.random.default_rng(1), value_sums if values else class_sums
    totals = [draw(world, 20_000, random)[0].sum(axis=0)[0, 0] for _ in range(10)]
    return {
        metric: float(np.mean([FROM_SUMS[metric](one) for one in totals])) for metric in (VALUES if values else CLASSES)
    }


def coverage(world: World, groups: int, datasets: int, values: bool, how: Resampling) -> dict[str, float]:
    """How often the interval of each metric holds the truth."""
    random, draw = np.random.default_rng([7, groups, values]), value_sums if values else class_sums
    truth = truth_of(world, values)
    statistics = [Statistic(mean_over_replicates(m), SCALES.get(m, "fraction")) for m in truth]
    hits = np.zeros(len(truth))
    for _ in range(datasets):
        sums, rows = draw(world, groups, random)
        found = intervals(sums, rows, statistics, how)
        hits += [one.low[0] <= value <= one.high[0] for one, value in zip(found, truth.values(), strict=True)]
    return dict(zip(truth, (hits / datasets).tolist(), strict=True))


def equal_models(
    world: World, groups: int, cells: int, random: np.random.Generator
) -> tuple[Array, Array]:  # fmt: skip
    """Sums [G, 1, C, K·K] of two models that are equally good on the population, on the same rows.

    Each has its own luck with every group, and half of the rows are predicted alike by both.
    """
    rows, shares, difficulty = draw_groups(world, groups, random)
    both = np.zeros((2, groups, 1, cells, K * K))
    for c in range(cells):
        alike = random.binomial(rows, 0.5)
        cell = cell_shares(world, shares, difficulty).reshape(groups, -1)
        common = random.multinomial(alike, cell / cell.sum(axis=1, keepdims=True))
        counts = random.multinomial(rows - alike, shares)  # truth of the other rows, the same for both models
        for model in range(2):
            luck = difficulty + 0.5 * random.standard_normal(groups)
            given = cell_shares(world, shares, luck) / shares[:, :, None]
            other = [
                random.multinomial(counts[:, k], given[:, k] / given[:, k].sum(axis=1, keepdims=True)) for k in range(K)
            ]
            both[model, :, 0, c] = common + np.stack(other, axis=1).reshape(groups, -1)
    return both[0], both[1]


def false_alarms(world: World, groups: int, datasets: int, how: Resampling, cells: int = 7) -> dict[str, float]:
    """How often the paired test of one cell, and the family of all after Holm, call equal models different at 5 %."""
    random = np.random.default_rng([11, groups])
    single, family = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for _ in range(datasets):
        a, b = equal_models(world, groups, cells, random)
        found = compare_sums(a, b, Task.CLASSIFICATION, CLASSES, how)
        single += [found[metric][0].p <= 0.05 for metric in CLASSES]
        family += [min(one.p_holm for one in found[metric]) <= 0.05 for metric in CLASSES]
    named = {metric: float(rate) for metric, rate in zip(CLASSES, single / datasets, strict=True)}
    return named | {f"{metric}, Holm": float(rate) for metric, rate in zip(CLASSES, family / datasets, strict=True)}


def run(worlds: dict[str, World], groups: tuple[int, ...], datasets: int, tests: int) -> list[dict[str, Any]]:
    """All figures, printed as they come."""
    how, found = Resampling(), []
    for name, world in worlds.items():
        for count in groups:
            start = time.perf_counter()
            for kind, values in (("classes", False), ("values", True)):
                rates = coverage(world, count, datasets, values, how)
                found.append(
                    {"world": name, "groups": count, "what": f"coverage, {kind}", "datasets": datasets, **rates}
                )
                _show(found[-1])
            if tests:
                alarms = false_alarms(world, count, tests, how)
                found.append({"world": name, "groups": count, "what": "false alarms", "datasets": tests, **alarms})
                _show(found[-1])
            print(f"  {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def _show(one: dict[str, Any]) -> None:
    rates = "  ".join(f"{key} {value:.3f}" for key, value in one.items() if isinstance(value, float))
    print(f"{one['world']:30} {one['groups']:4} groups  {one['what']:18} {rates}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--datasets", type=int, default=1000, help="simulated datasets a figure (default 1,000)")
    parser.add_argument("--tests", type=int, help="datasets for the paired tests (default: a fifth of --datasets)")
    parser.add_argument("--groups", type=int, nargs="+", default=list(GROUPS))
    parser.add_argument("--world", choices=list(WORLDS), action="append", help="may be repeated; by default all")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    tests = options.datasets // 5 if options.tests is None else options.tests
    worlds = {name: WORLDS[name] for name in options.world or WORLDS}
    found = run(worlds, tuple(options.groups), options.datasets, tests)
    if options.out:
        write_json(options.out, {"schema": 1, "figures": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
