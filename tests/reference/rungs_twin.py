"""Pruning written out the long way: whole lists, sorted, nothing incremental."""

from __future__ import annotations


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


def search(curves: list[list[float | None]], rungs: int, eta: int) -> list[int]:
    """How many rungs each trial passes, trial by trial; `curves[k][r]` is the score, None where it fails before."""
    reached: list[list[float | None]] = [[] for _ in range(rungs)]
    passed = []
    for number, curve in enumerate(curves):
        alive, count = True, 0
        for rung in range(rungs):
            score = curve[rung] if alive else None
            reached[rung].append(score)
            alive = score is not None and decide(number, eta, reached[rung])
            count += alive
        passed.append(count)
    return passed
