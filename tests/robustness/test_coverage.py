"""Intervals hold the truth about as often as they say, and equal models are seldom called different; bench/coverage.py
has the figures with many datasets."""

from __future__ import annotations

import numpy as np
import pytest

from bench.coverage import (
    CLASSES,
    VALUES,
    WORLDS,
    bounds_of_many,
    class_sums,
    coverage,
    equal_models,
    false_alarms,
    statistics_of,
    value_sums,
)
from mcutune.domain.task import Task
from mcutune.robustness.paired import compare_sums, per_cell
from mcutune.robustness.statistics import Resampling, intervals, permutation_test

HOW = Resampling(resamples=2000)


@pytest.mark.parametrize("groups", [8, 12, 30])
@pytest.mark.parametrize("world", ["speakers", "high accuracy"])
def test_intervals_hold_the_truth(world: str, groups: int) -> None:
    for rate in coverage(WORLDS[world], groups, 300, False, HOW).values():
        assert 0.91 <= rate <= 0.98  # 0.95 ± 3 standard errors of 300 datasets


def test_equal_models_are_seldom_called_different() -> None:
    rates = false_alarms(WORLDS["speakers"], 10, 150, HOW, cells=3)
    assert max(rates.values()) <= 0.11  # 0.05 + 3.3 standard errors of 150 datasets


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("groups", [9, 31])
def test_many_datasets_at_once_have_the_bounds_of_each_alone(groups: int, values: bool) -> None:
    random, metrics = np.random.default_rng(0), VALUES if values else CLASSES
    sums, rows = (value_sums if values else class_sums)(WORLDS["uneven"], groups, 5, random)
    how = Resampling(resamples=500)
    many = bounds_of_many(sums, rows, metrics, how)
    for d in range(5):
        alone = intervals(sums[:, :, [d]], rows[:, d], statistics_of(metrics), how)
        for (low, high), one in zip(many, alone, strict=True):
            assert (low[d], high[d]) == pytest.approx((one.low[0], one.high[0]), abs=1e-12)


def test_many_families_at_once_have_the_p_of_each_alone() -> None:
    random = np.random.default_rng(0)
    pairs = [equal_models(WORLDS["speakers"], 8, 3, random) for _ in range(4)]
    a, b = (np.concatenate(one, axis=2) for one in zip(*pairs, strict=True))
    found = permutation_test(a, b, list(per_cell(CLASSES, a.shape[2]).values()))[0]
    for n, (one, other) in enumerate(pairs):
        alone = compare_sums(one, other, Task.CLASSIFICATION, CLASSES, HOW)
        for metric, p in zip(CLASSES, found, strict=True):
            assert p[3 * n : 3 * n + 3] == pytest.approx([of.p for of in alone[metric]], abs=1e-12)
