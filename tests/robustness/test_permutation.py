"""The permutation test over groups against loops over all swaps of rows, scipy and hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from mcutune.domain.task import Task
from mcutune.robustness.answers import cannot_be_shown
from mcutune.robustness.paired import mean_over_replicates
from mcutune.robustness.statistics import (
    ALL_PATTERNS,
    DRAWN_PATTERNS,
    Statistic,
    _drawn_signs,
    permutation_test,
)
from mcutune.robustness.sums import unit_sums
from tests.reference.statistics_twin import swapped_p
from tests.robustness.test_group_statistics import by_sklearn, classes, sample, sums_of


def every_swap(groups: int) -> list[tuple[bool, ...]]:
    """All patterns, the one that swaps nothing first, without those that mirror another."""
    return [(False, *rest) for rest in itertools.product([False, True], repeat=groups - 1)]


def by_rows(
    metric: str, a: np.ndarray, b: np.ndarray, truth: np.ndarray, group: np.ndarray, patterns: list[tuple[bool, ...]]
) -> float:
    return swapped_p(lambda x, of: by_sklearn(metric, x[of], truth[of]), a[0, 0], b[0, 0], truth, group, patterns)


@pytest.mark.parametrize("rows", [90, 28])
@pytest.mark.parametrize("metric", ["wa", "ua", "mae"])
def test_the_permutation_test_equals_a_loop_over_all_swaps(metric: str, rows: int) -> None:
    predicted, truth, group, task = sample(metric, groups=7, rows=rows)
    group = group if rows == 90 else np.arange(rows) % 7  # four rows a group: many ties
    a, b = predicted[:1, 1:2], predicted[1:, :1]
    sums = [unit_sums(x, truth, group, 7, task, 4) for x in (a, b)]
    (p,), name = permutation_test(*sums, [Statistic(mean_over_replicates(metric))])
    assert name == ALL_PATTERNS
    expected = by_rows(metric, a, b, truth, group, every_swap(7))
    assert p[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["wa", "ua"])
def test_the_drawn_permutation_test_equals_a_loop_over_its_swaps(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, truth, _ = classes(groups=7, rows=28)
    group, a, b = np.arange(28) % 7, predicted[:1, 1:2], predicted[1:, :1]
    sums = [unit_sums(x, truth, group, 7, Task.CLASSIFICATION, 4) for x in (a, b)]
    monkeypatch.setattr("mcutune.robustness.statistics._ALL_UP_TO", 5)
    (p,), name = permutation_test(*sums, [Statistic(mean_over_replicates(metric))], permutations=60, seed=4)
    assert name == DRAWN_PATTERNS
    drawn = np.concatenate(list(_drawn_signs(7, 16, 60, 4))) < 0
    patterns = [(False,) * 7, *drawn.tolist()]
    expected = by_rows(metric, a, b, truth, group, patterns)
    assert p[0] == pytest.approx(expected, abs=1e-12)


def test_counts_tied_in_groups_of_unequal_size_equal_a_loop_over_all_swaps() -> None:
    random = np.random.default_rng(3)
    for _ in range(25):
        group = np.repeat(np.arange(6), random.integers(2, 8, size=6))
        right = random.random((2, len(group))) < 0.6
        predicted = np.where(right, 0, 1)[:, None, None]
        truth = np.zeros(len(group), dtype=int)
        sums = [unit_sums(x, truth, group, 6, Task.CLASSIFICATION, 2) for x in predicted]
        (p,), _ = permutation_test(*sums, [Statistic(mean_over_replicates("wa"))])
        expected = swapped_p(lambda x, of: float(x[of].mean()), *right, truth, group, every_swap(6))
        assert p[0] == pytest.approx(expected, abs=1e-12)


def p_of_counts(more_right: list[int], rows: int = 24) -> float:
    """p of accuracy, where model a gets so many rows more right in each group of as many rows; no group is alike."""
    half = rows // 2  # of each class: a gets more of one right, b of the other
    right = {"a": [[6 + more, 4] for more in more_right], "b": [[5, 5] for _ in more_right]}
    a, b = (
        np.array([[one, half - one, half - two, two] for one, two in groups])[:, None, None].astype(float)
        for groups in right.values()
    )
    return float(permutation_test(a, b, [Statistic(mean_over_replicates("wa"))])[0][0][0])


@pytest.mark.parametrize("groups", [5, 8, 11])
def test_ties_alone_give_the_mid_p_of_the_sign_test_with_the_observed_pattern_counted_whole(groups: int) -> None:
    for lost in range((groups + 1) // 2):
        as_extreme = stats.binomtest(lost, groups).pvalue
        tied = 2 * stats.binom.pmf(lost, groups, 0.5)
        p = p_of_counts([-1] * lost + [1] * (groups - lost))
        assert p == pytest.approx(as_extreme - tied / 2 + 0.5 / 2 ** (groups - 1), abs=1e-12)


def test_the_smallest_p_is_one_pattern_of_all_and_each_group_without_a_difference_adds_to_it() -> None:
    assert p_of_counts([1, 2, 3, 4, 5, 6]) == 2.0**-5
    assert p_of_counts([0, 2, 3, 4, 5, 6]) == 1.5 * 2.0**-5
    assert p_of_counts([0, 0, 3, 4, 5, 6]) == 2.5 * 2.0**-5
    one = {"test": ALL_PATTERNS, "groups": 6, "family": 1}
    assert not cannot_be_shown(one)
    assert cannot_be_shown(one | {"groups": 5})


def some_alike(differ: list[bool], metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of two models [G, 1, 1, A]: b is noisier than a in the groups that differ and its copy in the others."""
    a, _ = sums_of(metric, groups=len(differ), rows=30 * len(differ), seed=seed)
    return a[:, :1, 2:], np.where(np.array(differ)[:, None, None, None], a[:, 1:, :1], a[:, :1, 2:])


@pytest.mark.parametrize("metric", ["wa", "mae"])
@pytest.mark.parametrize("alike", [5, 15])
def test_groups_that_are_alike_in_both_models_give_the_p_of_the_others_alone(metric: str, alike: int) -> None:
    statistic, smallest = [Statistic(mean_over_replicates(metric))], 1.0
    for seed in range(40):
        differ = np.random.default_rng(seed).permutation([True] * 5 + [False] * alike)
        a, b = some_alike(differ.tolist(), metric, seed)
        (p,), name = permutation_test(a, b, statistic)
        (alone,), _ = permutation_test(a[differ], b[differ], statistic)
        assert name == ALL_PATTERNS  # 20 groups, but only 5 that can be swapped
        assert p == pytest.approx(alone, abs=1e-12)
        assert p[0] >= 2.0**-4
        smallest = min(smallest, p[0])
    assert smallest == 2.0**-4


def test_groups_that_are_alike_in_one_cell_count_for_nothing_there() -> None:
    """The second cell's groups all differ, and signs are enumerated or drawn over these."""
    few, _ = sums_of("mae", groups=20, rows=600, seed=1)
    for groups in (10, 20):
        a, b = few[:groups, :1, :2], few[:groups, 1:, 1:].copy()
        b[5:, :, 0] = a[5:, :, 0]
        statistic, statistic_alone = (Statistic(mean_over_replicates("mae"), cells=np.eye(n)) for n in (2, 1))
        (p,), name = permutation_test(a, b, [statistic])
        (alone,), _ = permutation_test(a[:5, :, :1], b[:5, :, :1], [statistic_alone])
        assert name == (ALL_PATTERNS if groups == 10 else DRAWN_PATTERNS)
        assert p[0] == pytest.approx(alone[0], abs=1e-12 if groups == 10 else 0.02)


def test_groups_that_differ_only_beside_a_cell_change_none_of_the_patterns_drawn_for_it() -> None:
    sums, _ = sums_of("mae", groups=20, rows=600, seed=1)
    a, b = sums[:, :1, :2], sums[:, 1:, 1:].copy()
    b[3:5, :, 0] = a[3:5, :, 0]
    (alone,), name = permutation_test(a[:, :, :1], b[:, :, :1], [Statistic(mean_over_replicates("mae"))])
    (beside,), _ = permutation_test(a, b, [Statistic(mean_over_replicates("mae"), cells=np.eye(2))])
    assert name == DRAWN_PATTERNS
    assert alone[0] == beside[0]


def test_equal_values_show_nothing() -> None:
    assert p_of_counts([1, -1, 0, 0, 0, 0]) == 1
    assert p_of_counts([0] * 6) == 1
    sums, _ = sums_of("wa", groups=20)
    found, _ = permutation_test(sums, sums, [Statistic(mean_over_replicates("wa"))])
    assert found[0].tolist() == [1, 1, 1]


def test_the_permutation_test_of_mean_error_is_scipys() -> None:
    """Mean absolute error with equal groups is a mean of group means, for which scipy has the paired test."""
    random = np.random.default_rng(2)
    truth = random.normal(size=90).astype(np.float32)
    group = np.arange(90) // 9
    a, b = truth + random.normal(0, 1, 90), truth + random.normal(0, 1.3, 90)
    sums = [unit_sums(x[None, None], truth, group, 10, Task.REGRESSION, 1) for x in (a, b)]
    (p,), _ = permutation_test(*sums, [Statistic(mean_over_replicates("mae"))])
    means = [np.abs(x - truth).reshape(10, 9).mean(axis=1) for x in (a, b)]
    theirs = stats.permutation_test(
        means, lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert p[0] == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_drawn_permutation_test_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, _ = sums_of("ua", groups=10)
    a, b = sums[:, :1, :1], sums[:, 1:, 1:2]
    (exact,), _ = permutation_test(a, b, [Statistic(mean_over_replicates("ua"))])
    monkeypatch.setattr("mcutune.robustness.statistics._ALL_UP_TO", 5)
    (drawn,), name = permutation_test(a, b, [Statistic(mean_over_replicates("ua"))])
    assert name == DRAWN_PATTERNS
    assert drawn[0] == pytest.approx(exact[0], abs=0.02)
    assert drawn[0] >= 1 / 10_000
