"""Intervals and tests over groups by plain loops over rows: what mcutune.robustness.statistics does with sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Value = Callable[[np.ndarray], float]  # row numbers to the metric of these rows


def resampled(value: Value, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metric of every resample; `weights` [B, G]: how often each group is drawn. Rows are really repeated."""
    members = [np.flatnonzero(group == g) for g in range(weights.shape[1])]
    found = []
    for one in weights.astype(int):
        rows = np.concatenate([np.tile(rows, times) for rows, times in zip(members, one, strict=True)])
        found.append(value(rows))
    return np.array(found)


def jackknife_error(value: Value, group: np.ndarray) -> float:
    """The standard error by leaving one group out."""
    groups = int(group.max()) + 1
    left = [value(np.flatnonzero(group != g)) for g in range(groups)]
    mean = sum(left) / groups
    return float(((groups - 1) / groups * sum((x - mean) ** 2 for x in left)) ** 0.5)


def swapped_p(value: Callable[[np.ndarray], float], a: np.ndarray, b: np.ndarray, group: np.ndarray) -> float:
    """Exact p: predictions of every subset of groups swapped between the models, row by row."""
    groups = int(group.max()) + 1
    observed = abs(value(a) - value(b))
    extreme = 0
    for pattern in range(2**groups):
        swap = np.array([pattern >> g & 1 for g in group], dtype=bool)
        extreme += abs(value(np.where(swap, b, a)) - value(np.where(swap, a, b))) >= observed - 1e-9
    return extreme / 2**groups
