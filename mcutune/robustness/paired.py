"""Is one model better than another on the same rows? Paired tests over groups, adjusted over their family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mcutune.domain.task import Task
from mcutune.robustness.evidence import Array
from mcutune.robustness.statistics import (
    MCNEMAR,
    Interval,
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
    true difference that would be found with probability .8; `error`: the standard error over groups, with its degrees
    of freedom."""

    difference: float
    low: float | None
    high: float | None
    interval: str
    test: str
    p: float
    p_holm: float
    detectable: float | None
    error: float
    freedom: float

    def entry(self) -> dict[str, Any]:
        """As reports have it: what was found, and not what it was found from."""
        return {key: value for key, value in asdict(self).items() if key not in ("error", "freedom")}


def mean_over_replicates(metric: str) -> Callable[[Array], Array]:
    """The metric of sums [.., S, C, A], mean over replicates: [.., C]."""
    function = FROM_SUMS[metric]
    return lambda sums: function(sums).mean(axis=-2)


def compare_sums(
    a: Array, b: Array, task: Task, metrics: Sequence[str], how: Resampling
) -> dict[str, list[Difference]]:  # fmt: skip
    """Each cell of model `a` against model `b`, from sums [G, S, C, A] of the same groups: C tests a family."""
    return compare_values(a, b, task, per_cell(metrics, a.shape[2]), how)


def per_cell(metrics: Sequence[str], cells: int) -> dict[str, Statistic]:
    """Each metric in every cell."""
    return {metric: Statistic(mean_over_replicates(metric), cells=np.eye(cells)) for metric in metrics}


def weighted(metric: str, weights: Array) -> Statistic:
    """A metric's sum over cells by weights [C]: one quantity."""
    value = mean_over_replicates(metric)
    return Statistic(lambda sums: (value(sums) @ weights)[..., None], cells=np.abs(weights)[None])


def compare_values(
    a: Array, b: Array, task: Task, statistics: Mapping[str, Statistic], how: Resampling
) -> dict[str, list[Difference]]:  # fmt: skip
    """Model `a` against `b` in the quantities of each statistic, from sums [G, S, C, A]: Q tests a family.

    Under the name `wa` must stand the accuracy of each cell.
    """
    a, b = _as_many(a, b)
    found = differences(a, b, task, statistics, how)
    p, test = permutation_test(a, b, list(statistics.values()), seed=how.seed)
    tests = [test] * len(statistics)
    if "wa" in statistics and a.shape[1] == 1 and rows_in(a, task).max() <= 1:
        place = list(statistics).index("wa")
        p[place], tests[place] = _mcnemar(a, b), MCNEMAR
    parts = zip(statistics, found, p, tests, strict=True)
    return {name: _differences(one, of, test, how) for name, one, of, test in parts}


def differences(
    a: Array, b: Array, task: Task, statistics: Mapping[str, Statistic], how: Resampling
) -> list[Interval]:  # fmt: skip
    """Model `a` minus model `b` in the quantities of each statistic, as in `compare_values`."""
    a, b = _as_many(a, b)
    apart = [_apart(one) for one in statistics.values()]
    return intervals(np.stack([a, b], axis=1), rows_in(a, task).mean(axis=1), apart, how)


def _apart(of: Statistic) -> Statistic:
    """The difference of two models stacked as [.., 2, S, C, A]."""
    return Statistic(
        lambda sums: of.function(sums[..., 0, :, :, :]) - of.function(sums[..., 1, :, :, :]), cells=of.cells
    )


def _differences(found: Interval, p: Array, test: str, how: Resampling) -> list[Difference]:
    adjusted = holm(p.tolist())
    return [
        Difference(
            difference=round(float(found.value[c]), 12),
            low=number(found.low[c]),
            high=number(found.high[c]),
            interval=found.method[c],
            test=test,
            p=round(float(p[c]), 12),
            p_holm=round(adjusted[c], 12),
            detectable=_detectable(float(found.error[c]), float(found.freedom[c]), how),
            error=float(found.error[c]),
            freedom=float(found.freedom[c]),
        )
        for c in range(len(found.value))
    ]


def _mcnemar(a: Array, b: Array) -> Array:
    """p of each cell [C] where every group is one row and there is one seed."""
    right = [np.trace(_square(sums[:, 0]), axis1=-2, axis2=-1) > 0 for sums in (a, b)]
    return np.array([mcnemar(x, y) for x, y in zip(right[0].T, right[1].T, strict=True)])


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
    return compare_sums(a, b, task, [metric], how or Resampling())[metric]


def _as_many(a: Array, b: Array) -> tuple[Array, Array]:
    """Both with the same number of replicates: repeating all of them changes no mean."""
    count = math.lcm(a.shape[1], b.shape[1])
    return np.repeat(a, count // a.shape[1], axis=1), np.repeat(b, count // b.shape[1], axis=1)


def _square(sums: Array) -> Array:
    classes = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def number(value: float) -> float | None:
    """A float for JSON, None where it is not finite. Rounded to 12 decimals, so that the order in which a machine adds
    values of regression does not show."""
    return round(float(value), 12) if math.isfinite(value) else None
