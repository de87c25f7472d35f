"""Intervals and tests over groups by plain loops over rows: what mcutune.robustness.statistics does with sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

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


def swapped_p(
    value: Callable[[np.ndarray, np.ndarray], float],
    a: np.ndarray,
    b: np.ndarray,
    truth: np.ndarray,
    group: np.ndarray,
    patterns: Sequence[Sequence[bool]],
) -> float:
    """p: rank of the first pattern among all, most extreme first, equals sharing the mean of their ranks; patterns that
    are the first one over again, but for groups in which both models do the same, are all ranked before it.

    `patterns`: which groups' predictions are swapped between the models, row by row. Equal differences are told apart
    by the sum of the groups' own. `value` of predictions and of the rows (a mask) that count. 1 where nothing differs.
    """
    groups, every = int(group.max()) + 1, np.ones(len(group), dtype=bool)

    def apart(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        own = [value(x, group == g) - value(y, group == g) for g in range(groups)]
        return round(abs(value(x, every) - value(y, every)), 9), round(abs(sum(np.nan_to_num(own))), 9)

    def does(x: np.ndarray, g: int) -> list[tuple[float, float]]:
        return sorted(zip(truth[group == g].tolist(), x[group == g].tolist(), strict=True))

    differ = [g for g in range(groups) if does(a, g) != does(b, g)]
    found, copies = [], 0
    for pattern in patterns:
        swap = np.array([pattern[g] for g in group], dtype=bool)
        found.append(apart(np.where(swap, b, a), np.where(swap, a, b)))
        moved = [pattern[g] != patterns[0][g] for g in differ]
        copies += all(moved) or not any(moved)
    places = sorted(set(found), reverse=True)
    ranks = stats.rankdata([places.index(one) for one in found], method="average")
    return float((ranks[0] + (copies - 1) / 2) / len(found)) if found[0][0] > 0 else 1.0
