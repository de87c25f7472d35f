"""Is one model better than another on the same rows? Paired tests over groups, adjusted over their family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mcutune.domain.task import Task
from mcutune.robustness.evidence import Array
from mcutune.robustness.statistics import (
    MCNEMAR,
    Resampling,
    Statistic,
    detectable,
    holm,
    intervals,
    mcnemar,
    permutation_test,
)
from mcutune.robustness.sums import FROM_SUMS, rows_in, unit_sums


@dataclass(frozen=True)
class Difference:
    """Model minus reference in one cell. Bounds are None where there are too few groups. `detectable`: the smallest
    true difference that would be found with probability .8."""

    difference: float
    low: float | None
    high: float | None
    interval: str
    test: str
    p: float
    p_holm: float
    detectable: float | None


def mean_over_replicates(metric: str) -> Callable[[Array], Array]:
    """The metric of sums [.., S, C, A], mean over replicates: [.., C]."""
    function = FROM_SUMS[metric]
    return lambda sums: function(sums).mean(axis=-2)


def compare_sums(a: Array, b: Array, task: Task, metric: str, how: Resampling) -> list[Difference]:
    """Each cell of model `a` against model `b`, from sums [G, S, C, A] of the same groups, one family of C tests."""
    a, b = _as_many(a, b)
    value = mean_over_replicates(metric)
    apart = Statistic(lambda sums: value(sums[..., 0, :, :, :]) - value(sums[..., 1, :, :, :]))
    rows = rows_in(a, task).mean(axis=(1, 2))
    found = intervals(np.stack([a, b], axis=1), rows, [apart], how)[0]
    if metric == "wa" and a.shape[1] == 1 and rows.max() <= 1:
        right = [np.trace(_square(sums[:, 0]), axis1=-2, axis2=-1) > 0 for sums in (a, b)]
        p, test = np.array([mcnemar(x, y) for x, y in zip(right[0].T, right[1].T, strict=True)]), MCNEMAR
    else:
        p, test = permutation_test(a, b, Statistic(value), seed=how.seed)
    adjusted = holm(p.tolist())
    return [
        Difference(
            difference=float(found.value[c]),
            low=number(found.low[c]),
            high=number(found.high[c]),
            interval=found.method[c],
            test=test,
            p=float(p[c]),
            p_holm=adjusted[c],
            detectable=_detectable(float(found.error[c]), found.freedom, how),
        )
        for c in range(len(found.value))
    ]


def _detectable(error: float, freedom: float, how: Resampling) -> float | None:
    return number(detectable(error, freedom, confidence=how.confidence)) if error > 0 else None


def compare(
    predicted: Array, reference: Array, truth: Array, group: Array, task: Task, metric: str, classes: int = 0,
    how: Resampling | None = None,
) -> list[Difference]:  # fmt: skip
    """Each cell of predictions [S, C, N] against those of a reference [S', C, N] on the same rows, C tests a family.

    `truth` [N]; `group` [N]: codes. Class indices, or values.
    """
    index = np.unique(group, return_inverse=True)[1]
    units = int(index.max()) + 1
    a, b = (unit_sums(np.asarray(one), truth, index, units, task, classes) for one in (predicted, reference))
    return compare_sums(a, b, task, metric, how or Resampling())


def _as_many(a: Array, b: Array) -> tuple[Array, Array]:
    """Both with the same number of replicates: repeating all of them changes no mean."""
    count = math.lcm(a.shape[1], b.shape[1])
    return np.repeat(a, count // a.shape[1], axis=1), np.repeat(b, count // b.shape[1], axis=1)


def _square(sums: Array) -> Array:
    classes = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def number(value: float) -> float | None:
    """A float for JSON: None where it is not finite."""
    return float(value) if math.isfinite(value) else None
