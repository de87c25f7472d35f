"""Pruning written out the long way: whole lists, sorted, nothing incremental."""

from __future__ import annotations

import math


def decide(number: int, eta: int, scores: list[float | None]) -> bool:
    """Whether `number` goes on; `scores` of all lower trials are final, None where a trial did not reach the rung."""
    if number == 0:
        return True
    reached = [j for j in range(number) if scores[j] is not None]
    pool = [*reached[-16:], number]
    if len(pool) < eta:
        return True
    ranking = sorted(pool, key=lambda j: (-(scores[j] or 0.0), j))
    return number in ranking[: max(1, len(pool) // eta)]


def spearman(pairs: list[tuple[float, float]]) -> float | None:
    """Pearson's correlation of ranks, equal values sharing their mean rank; 0 where one side is all equal."""
    if len(pairs) < 4:
        return None
    sides = [[pair[i] for pair in pairs] for i in (0, 1)]
    ranks = [[sum(w < v for w in side) + (side.count(v) + 1) / 2 for v in side] for side in sides]
    means = [sum(side) / len(side) for side in ranks]
    (a, b), n = ranks, range(len(pairs))
    covariance = sum((a[i] - means[0]) * (b[i] - means[1]) for i in n)
    spread = math.prod(sum((side[i] - mean) ** 2 for i in n) for side, mean in zip(ranks, means, strict=True))
    return covariance / math.sqrt(spread) if spread else 0.0


def search(curves: list[list[float | None]], rungs: int, eta: int, scouts: int = 0, lag: int = 0) -> list[int]:
    """How many rungs each trial passes, trial by trial.

    `curves[k][r]` is the score at rung r, `curves[k][rungs]` at the end; None where it fails before.
    """
    reached: list[list[float | None]] = [[] for _ in range(rungs)]
    passed: list[int] = []
    for number, curve in enumerate(curves):
        alive, count = True, 0
        for rung in range(rungs):
            score = curve[rung] if alive else None
            reached[rung].append(score)
            alive = score is not None and _goes_on(number, rung, curves, eta, scouts, lag, reached[rung])
            count += alive
        passed.append(count)
    return passed


def _goes_on(
    number: int, rung: int, curves: list[list[float | None]], eta: int, scouts: int, lag: int, here: list[float | None]
) -> bool:
    if number < scouts:
        return True
    if number >= scouts + lag:
        ends = [(curve[rung], curve[-1]) for curve in curves[:scouts] if None not in curve]
        known = spearman(ends)  # type: ignore[arg-type]
        if known is not None and known < 0.3:
            return True
        if known is not None and known < 0.6:
            eta = min(eta, 2)
    return decide(number, eta, here)
