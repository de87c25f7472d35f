"""Who goes on at a rung: a pure function of the trials' numbers and scores, whatever the order of arrival.

At a rung, trial k is compared with the 16 nearest lower-numbered trials that reached it; it goes on if it is among the
best 1/eta of them and itself, ties to the lower number. With fewer than eta − 1 to compare with it goes on, as trial 0
always does, which has nobody below it. As long as one of those that might belong to the 16 is neither at the rung nor
at its end, the answer is WAIT, and the trial is parked.

How far a rung can be trusted is measured, where the space names `scouts`: so many first trials are trained in full
whatever their rungs say, so that their ends are known without a choice made at the rung itself (over the trials that
went on, the correlation would be of a narrowed range, and too low). A trial that knows the scouts' ends (those below
k − lag, as for proposals) takes their rank correlation with the rung into account: the lower, the more trials go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from mcutune.domain.trial import State

if TYPE_CHECKING:
    from mcutune.search.records import TrialRecord
    from mcutune.search.space import Rungs

PEERS = 16
FEWEST_SCOUTS = 4  # with fewer, any order is likely by chance
RELIABLE, DOUBTFUL = 0.6, 0.3  # rank correlations: from the first on a rung is believed, below the second not at all


class Decision(str, Enum):
    GO_ON = "go on"
    PRUNE = "prune"
    WAIT = "wait"


class Absent(Enum):
    """Why a trial has no score at a rung."""

    NEVER = "never"  # it ended before, or repeats another trial: it does not count
    NOT_YET = "not yet"


def decide(number: int, eta: int, score: Callable[[int], float | Absent]) -> Decision:
    """Whether trial `number`, which has reached a rung, goes on; `score(j)` is trial j's score there."""
    mine = score(number)
    if isinstance(mine, Absent):
        raise ValueError(f"trial {number} has not reached the rung")
    peers = 0
    better = 0
    for lower in range(number - 1, -1, -1):
        theirs = score(lower)
        if theirs is Absent.NOT_YET:
            return Decision.WAIT
        if isinstance(theirs, Absent):
            continue
        peers += 1
        better += theirs >= mine  # a tie goes to the lower number
        if peers == PEERS:
            break
    if peers + 1 < eta:
        return Decision.GO_ON
    return Decision.GO_ON if better < max(1, (peers + 1) // eta) else Decision.PRUNE


def scouted(trials: Sequence[TrialRecord], scouts: int, rung: int) -> tuple[tuple[float, float], ...]:
    """(score at the rung, score at the end) of every scout that has both; what repeats another trial counts once."""
    return tuple(
        (trial.reached[rung], trial.score)
        for trial in trials[:scouts]
        if trial.state is State.FINISHED and trial.repeats is None and trial.score is not None and rung in trial.reached
    )


@lru_cache(maxsize=64)  # asked at every decision
def rank_correlation(pairs: tuple[tuple[float, float], ...]) -> float | None:
    """Spearman's, of scores at a rung with those at the end; None of too few.

    0 where one side is all equal: such a rung tells nothing. Rounded, so that the last bits decide nothing.
    """
    if len(pairs) < FEWEST_SCOUTS:
        return None
    here, end = zip(*pairs, strict=True)
    if len(set(here)) == 1 or len(set(end)) == 1:
        return 0.0
    from scipy.stats import spearmanr

    return round(float(spearmanr(here, end).statistic), 9)


def widened(eta: int, correlation: float | None) -> int:
    """The eta by which a rung is decided: as named, 2 where it is doubtful, 1 (all go on) where it tells nothing."""
    if correlation is None or correlation >= RELIABLE:
        return eta
    return min(eta, 2) if correlation >= DOUBTFUL else 1


def eta_of(number: int, rungs: Rungs, lag: int, rung: int, trials: Sequence[TrialRecord]) -> int | None:
    """The eta by which trial `number` is decided at a rung; None while a scout whose end it knows is still running.

    1 for a scout. A trial within `lag` of the scouts started without knowing their ends, and is decided without.
    """
    if number < rungs.scouts:
        return 1
    if number < rungs.scouts + lag:
        return rungs.eta
    if any(trial.state is State.RUNNING for trial in trials[: rungs.scouts]):
        return None
    return widened(rungs.eta, rank_correlation(scouted(trials, rungs.scouts, rung)))
