"""Metrics as functions of additive sums, so that resampling groups is a matrix product and never touches rows again.

Axes: G groups, S replicates (seeds, or seeds × masks), C cells measured on the same rows, A additive components.
Classification: A = K·K confusion counts (truth, predicted). Regression: the moments named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.task import METRICS, Metric, Task, accuracy_of, f1_weighted_of

Array = npt.NDArray[Any]
FromSums = Callable[[Array], Array]

# Components of regression: rows, absolute error, first and second moments, then the 2 × 2 counts of signs.
_ROWS, _ERROR, _X, _Y, _XX, _YY, _XY, _SIGNS = 0, 1, 2, 3, 4, 5, 6, slice(7, 11)


def components(task: Task, classes: int) -> int:
    """A, the number of additive components."""
    return classes**2 if task is Task.CLASSIFICATION else 11


def unit_sums(
    predicted: Array, truth: Array, unit: Array, units: int, task: Task, classes: int, valid: Array | None = None
) -> Array:
    """Sums of each unit (a group, or a fold), float64 [units, S, C, A].

    `predicted` [S, C, N]: class indices, or values. `truth` [N]. `unit` [N]: codes below `units`. `valid`: bool
    [S, C, N], which rows count; all where None.
    """
    replicates, cells, _ = predicted.shape
    width = components(task, classes)
    sums = np.empty((units, replicates, cells, width))
    shift = 0.0 if task is Task.CLASSIFICATION else float(np.mean(truth, dtype=np.float64))
    for c in range(cells):
        for s in range(replicates):
            kept = slice(None) if valid is None else valid[s, c]
            if task is Task.CLASSIFICATION:
                where = (unit[kept] * classes + truth[kept]) * classes + predicted[s, c, kept]
                sums[:, s, c] = np.bincount(where, minlength=units * width).reshape(units, width)
            else:
                rows = _moments(predicted[s, c, kept].astype(np.float64), truth[kept].astype(np.float64), shift)
                sums[:, s, c] = np.stack([np.bincount(unit[kept], column, units) for column in rows], axis=1)
    return sums


def _moments(predicted: Array, truth: Array, shift: float) -> list[Array]:
    """The components of every row. Moments are taken about the mean truth, which keeps their differences accurate."""
    x, y = predicted - shift, truth - shift
    rows = [np.ones_like(x), np.abs(predicted - truth), x, y, x * x, y * y, x * y]
    signs = 2 * (truth > 0) + (predicted > 0)
    return rows + [((signs == cell) & (truth != 0)).astype(np.float64) for cell in range(4)]


def rows_in(sums: Array, task: Task) -> Array:
    """Rows counted, from sums [.., A]."""
    return sums.sum(axis=-1) if task is Task.CLASSIFICATION else sums[..., _ROWS]


def _square(sums: Array) -> Array:
    classes = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def _mae(sums: Array) -> Array:
    return sums[..., _ERROR] / sums[..., _ROWS]


def _pearson(sums: Array) -> Array:
    """Pearson's r; 0 where either side is constant (up to rounding)."""
    n = sums[..., _ROWS]
    xx = sums[..., _XX] - sums[..., _X] ** 2 / n
    yy = sums[..., _YY] - sums[..., _Y] ** 2 / n
    xy = sums[..., _XY] - sums[..., _X] * sums[..., _Y] / n
    varies = (xx > 1e-12 * sums[..., _XX]) & (yy > 1e-12 * sums[..., _YY])
    scale = np.sqrt(np.where(varies, xx * yy, 1.0))
    return np.where(varies, xy / scale, 0.0)


_REGRESSION: dict[str, FromSums] = {
    "mae": _mae,
    "pearson": _pearson,
    "acc2": lambda sums: accuracy_of(_square(sums[..., _SIGNS])),
    "f1_nonzero": lambda sums: f1_weighted_of(_square(sums[..., _SIGNS])),
}


def from_sums(metric: Metric) -> FromSums:
    """The metric as a function of sums [.., A] to values [..]; NaN where no row counts."""
    counts = metric.from_counts
    inner = _REGRESSION[metric.name] if counts is None else lambda sums: counts(_square(sums))

    def function(sums: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return inner(sums)

    return function


FROM_SUMS: dict[str, FromSums] = {name: from_sums(metric) for name, metric in METRICS.items()}
