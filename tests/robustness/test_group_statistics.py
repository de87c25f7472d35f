"""Metrics from sums against scikit-learn; intervals and tests against loops over rows, scipy and statsmodels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from mcutune.domain.task import METRICS, Task
from mcutune.robustness.paired import compare, mean_over_replicates
from mcutune.robustness.statistics import (
    BOOTSTRAP,
    DRAWN_PATTERNS,
    MCNEMAR,
    NO_SPREAD,
    T_JACKKNIFE,
    TOO_FEW,
    Interval,
    Resampling,
    Statistic,
    _weights,
    bootstrap,
    detectable,
    effective_groups,
    holm,
    intervals,
    jackknife_errors,
    t_bounds,
)
from mcutune.robustness.sums import FROM_SUMS, rows_in, unit_sums
from tests.reference.statistics_twin import jackknife_error, resampled

CLASSES = ["wa", "ua", "f1"]
VALUES = ["mae", "pearson", "acc2", "f1_nonzero"]


def classes(groups: int = 12, rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted [S = 2, C = 3, N] classes, truth [N], group [N], uneven groups."""
    random = np.random.default_rng(seed)
    group = np.sort(random.choice(groups, size=rows, p=random.dirichlet(np.full(groups, 4.0))))
    group[:groups] = np.arange(groups)
    truth = random.choice(4, size=rows, p=[0.4, 0.3, 0.2, 0.1])
    right = random.random((2, 3, rows)) < np.array([0.5, 0.7, 0.9])[None, :, None] - 0.2 * (group % 3)
    return np.where(right, truth, random.integers(4, size=right.shape)), truth, group


def values(groups: int = 12, rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    group = random.integers(groups, size=rows)
    truth = np.where(random.random(rows) < 0.1, 0, np.round(random.normal(0.3, 1.2, rows), 1)).astype(np.float32)
    return truth + random.normal(0, 1, (2, 3, rows)) + 0.2 * (group % 3), truth, group


def by_sklearn(metric: str, predicted: np.ndarray, truth: np.ndarray) -> float:
    kept = truth != 0
    return float(
        {
            "wa": lambda: sk.accuracy_score(truth, predicted),
            "ua": lambda: sk.recall_score(truth, predicted, average="macro", labels=np.unique(truth)),
            "f1": lambda: sk.f1_score(truth, predicted, average="weighted", zero_division=0),
            "mae": lambda: sk.mean_absolute_error(truth, predicted),
            "pearson": lambda: stats.pearsonr(truth, predicted).statistic,
            "acc2": lambda: sk.accuracy_score(truth[kept] > 0, predicted[kept] > 0),
            "f1_nonzero": lambda: sk.f1_score(truth[kept] > 0, predicted[kept] > 0, average="weighted"),
        }[metric]()
    )


def sample(metric: str, **given: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Task]:
    task = METRICS[metric].task
    return (*(classes(**given) if task is Task.CLASSIFICATION else values(**given)), task)


def sums_of(metric: str, **given: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums [G, S, C, A], and rows a group [G]."""
    predicted, truth, group, task = sample(metric, **given)
    sums = unit_sums(predicted, truth, group, int(group.max()) + 1, task, 4)
    return sums, np.bincount(group)


@pytest.mark.parametrize("metric", CLASSES + VALUES)
def test_metrics_from_sums_are_those_of_scikit_learn(metric: str) -> None:
    predicted, truth, group, task = sample(metric)
    sums = unit_sums(predicted, truth, group, 12, task, 4)
    assert sums.shape[:3] == (12, 2, 3)
    pooled, direct = FROM_SUMS[metric](sums.sum(axis=0)), METRICS[metric](predicted, truth, 4)
    for s in range(2):
        for c in range(3):
            expected = by_sklearn(metric, predicted[s, c], truth)
            assert pooled[s, c] == pytest.approx(expected, abs=1e-6)
            assert direct[s, c] == pytest.approx(expected, abs=1e-6)
    each = FROM_SUMS[metric](sums)[3, 1, 2]
    assert each == pytest.approx(by_sklearn(metric, predicted[1, 2, group == 3], truth[group == 3]), abs=1e-6)


@pytest.mark.parametrize("metric", ["f1", "mae"])
def test_rows_that_do_not_count_do_not_count(metric: str) -> None:
    predicted, truth, group, task = sample(metric)
    valid = np.random.default_rng(5).random(predicted.shape) < 0.6
    sums = unit_sums(predicted, truth, group, 12, task, 4, valid).sum(axis=0)
    kept = valid[1, 2]
    assert rows_in(sums, task)[1, 2] == kept.sum()
    assert FROM_SUMS[metric](sums)[1, 2] == pytest.approx(
        by_sklearn(metric, predicted[1, 2, kept], truth[kept]), abs=1e-6
    )


def test_pearson_of_a_constant_is_zero() -> None:
    truth = np.random.default_rng(0).normal(size=50).astype(np.float32)
    sums = unit_sums(np.full((1, 1, 50), 0.123), truth, np.zeros(50, int), 1, Task.REGRESSION, 1)
    assert FROM_SUMS["pearson"](sums[0])[0, 0] == 0


def value_of(metric: str, predicted: np.ndarray, truth: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda rows: by_sklearn(metric, predicted[rows], truth[rows])


@pytest.mark.parametrize("metric", CLASSES + VALUES)
def test_bootstrap_and_jackknife_equal_loops_over_rows(metric: str) -> None:
    predicted, truth, group, task = sample(metric)
    sums = unit_sums(predicted, truth, group, 12, task, 4)
    statistic = Statistic(mean_over_replicates(metric))
    weights = np.concatenate(list(_weights(12, sums[0].size, 30, 3)))
    assert weights.shape == (30, 12)
    assert (weights.sum(axis=1) == 12).all()
    drawn = bootstrap(sums, [statistic], 30, 3)[0]
    error = jackknife_errors(sums, [statistic])[0]
    for c in range(3):
        both = [value_of(metric, predicted[s, c], truth) for s in range(2)]

        def mean(rows: np.ndarray, both: list[Callable[[np.ndarray], float]] = both) -> float:
            return sum(one(rows) for one in both) / 2

        assert drawn[:, c] == pytest.approx(resampled(mean, group, weights), abs=1e-6)
        assert error[c] == pytest.approx(jackknife_error(mean, group), abs=1e-6)


def test_many_small_groups_take_the_sparse_way_to_the_same_numbers() -> None:
    predicted, truth, _ = classes(rows=500)
    sums = unit_sums(predicted, truth, np.arange(500), 500, Task.CLASSIFICATION, 4)
    assert np.count_nonzero(sums) < 0.1 * sums.size
    statistic = Statistic(mean_over_replicates("f1"))
    weights = np.concatenate(list(_weights(500, sums[0].size, 20, 0)))
    dense = (weights @ sums.reshape(500, -1)).reshape(20, *sums.shape[1:])
    counts = Statistic(lambda sums: sums[..., 0, :, 5])
    drawn = bootstrap(sums, [statistic, counts], 20, 0)
    assert drawn[0] == pytest.approx(statistic.function(dense), abs=1e-12)
    assert drawn[1] == pytest.approx(dense[:, 0, :, 5])


def interval_of(metric: str, scale: str = "fraction", **given: int) -> Interval:
    sums, rows = sums_of(metric, **given)
    return intervals(sums, rows, [Statistic(mean_over_replicates(metric), scale)])[0]


def test_the_method_follows_the_number_of_groups() -> None:
    assert interval_of("wa", groups=7).method == [TOO_FEW] * 3
    assert np.isnan(interval_of("wa", groups=7).low).all()
    assert interval_of("wa", groups=8).method == [T_JACKKNIFE] * 3
    assert interval_of("wa", groups=29).method == [T_JACKKNIFE] * 3
    assert interval_of("wa", groups=30).method == [BOOTSTRAP] * 3
    for found in (interval_of("ua", groups=8), interval_of("f1", groups=40), interval_of("pearson", "correlation")):
        assert ((found.low < found.value) & (found.value < found.high)).all()


def test_t_and_bootstrap_agree_where_both_are_good() -> None:
    """With 120 groups the small-sample method and the bootstrap give nearly the same bounds."""
    sums, rows = sums_of("ua", groups=120, rows=4000)
    statistic = Statistic(mean_over_replicates("ua"), "fraction")
    found = intervals(sums, rows, [statistic])[0]
    low, high = t_bounds(found.value, found.error, "fraction", found.freedom, 0.95)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low).max())
    assert found.high == pytest.approx(high, abs=0.1 * (high - low).max())


def test_percentiles_agree_with_scipys_bootstrap() -> None:
    """Without the widening for few groups, the bounds are scipy's percentile bounds up to resampling noise."""
    sums, rows = sums_of("wa", groups=60, rows=2000)
    function = mean_over_replicates("wa")
    drawn = bootstrap(sums, [Statistic(function)], 4000, 0)[0][:, 0]

    def statistic(index: np.ndarray, axis: int = -1) -> np.ndarray:
        return function(sums[np.moveaxis(index, axis, 0).astype(int)].sum(axis=0))[..., 0]

    theirs = stats.bootstrap(
        (np.arange(60),), statistic, vectorized=True, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([theirs.low, theirs.high], abs=0.08 * width)


def test_bounds_of_fractions_stay_inside_and_perfection_has_no_spread() -> None:
    truth = np.tile(np.arange(4), 30)
    predicted = truth.copy()
    group = np.arange(120) // 10
    sums = unit_sums(predicted[None, None], truth, group, 12, Task.CLASSIFICATION, 4)
    statistic = Statistic(mean_over_replicates("wa"), "fraction")
    assert intervals(sums, np.full(12, 10), [statistic])[0].method == [NO_SPREAD]
    predicted[5] = (predicted[5] + 1) % 4
    sums = unit_sums(predicted[None, None], truth, group, 12, Task.CLASSIFICATION, 4)
    found = intervals(sums, np.full(12, 10), [statistic])[0]
    assert 0 < found.low[0] < found.value[0] < found.high[0] < 1


def test_the_same_seed_gives_the_same_bounds_whatever_is_asked_beside() -> None:
    sums, rows = sums_of("wa", groups=40)
    wa, ua = (Statistic(mean_over_replicates(m), "fraction") for m in ("wa", "ua"))
    alone, beside = intervals(sums, rows, [wa])[0], intervals(sums, rows, [ua, wa])[1]
    assert (alone.low == beside.low).all()
    assert (intervals(sums, rows, [wa], Resampling(seed=1))[0].low != alone.low).any()


def test_effective_groups() -> None:
    assert effective_groups(np.full(12, 30)) == pytest.approx(12)
    assert effective_groups(np.array([90, 5, 5])) == pytest.approx(100**2 / (8100 + 50))


def test_a_model_against_itself_shows_nothing() -> None:
    predicted, truth, group = classes()
    found = compare(predicted, predicted[::-1], truth, group, Task.CLASSIFICATION, "ua", 4)
    assert [(one.difference, one.p, one.p_holm) for one in found] == [(pytest.approx(0, abs=1e-15), 1, 1)] * 3


def test_compare_takes_different_numbers_of_seeds() -> None:
    predicted, truth, group = classes()
    one = compare(predicted, predicted[:1, ::-1], truth, group, Task.CLASSIFICATION, "wa", 4)
    both = compare(predicted, np.repeat(predicted[:1, ::-1], 4, axis=0), truth, group, Task.CLASSIFICATION, "wa", 4)
    for x, y in zip(one, both, strict=True):
        assert dataclasses.astuple(x)[:3] == pytest.approx(dataclasses.astuple(y)[:3])
        assert (x.p, x.test) == (y.p, y.test)
    assert one[1].difference == pytest.approx(
        np.mean(predicted[:, 1] == truth) - np.mean(predicted[0, 1] == truth), abs=1e-12
    )


def test_mcnemar_where_every_row_is_its_own_group() -> None:
    predicted, truth, _ = classes(rows=150)
    found = compare(predicted[:1], predicted[:1, ::-1], truth, np.arange(150), Task.CLASSIFICATION, "wa", 4)
    a, b = predicted[0, 0] == truth, predicted[0, 2] == truth
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert found[0].test == MCNEMAR
    assert found[0].p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    assert (
        compare(predicted, predicted[:, ::-1], truth, np.arange(150), Task.CLASSIFICATION, "wa", 4)[0].test
        == DRAWN_PATTERNS
    )


def test_holm_by_hand_and_as_in_statsmodels() -> None:
    p = np.random.default_rng(0).random(40) ** 3
    p[5] = p[6]
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_detectable_difference_is_found_with_its_power() -> None:
    """A difference of that size, in normal data of 20 groups, is significant in about 80 % of draws."""
    random = np.random.default_rng(0)
    size = detectable(1 / math.sqrt(20), 19)
    draws = random.normal(size, 1, (4000, 20))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / math.sqrt(20))
    assert (np.abs(t) > stats.t.ppf(0.975, 19)).mean() == pytest.approx(0.8, abs=0.03)


def test_a_bootstrap_interval_is_no_narrower_than_t_or_its_own_percentiles() -> None:
    sums, rows = sums_of("wa", groups=31, rows=900)
    statistic = Statistic(mean_over_replicates("wa"), "fraction")
    (found,) = intervals(sums, rows, [statistic])
    freedom = effective_groups(rows) - 1
    low, high = t_bounds(found.value, found.error, "fraction", freedom, 0.95)
    drawn = np.sort(bootstrap(sums, [statistic], 4000, 0)[0], axis=0)
    assert (found.low <= np.minimum(low, drawn[100])).all()
    assert (found.high >= np.maximum(high, drawn[-101])).all()
    assert found.method == [BOOTSTRAP] * 3
