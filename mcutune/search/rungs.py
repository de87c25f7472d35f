"""Who goes on at a rung: a pure function of the trials' numbers and scores, whatever the order of arrival.

At a rung, trial k is compared with the 16 nearest lower-numbered trials that reached it; it goes on if it is among the
best 1/eta of them and itself, ties to the lower number. With fewer than eta − 1 to compare with it goes on, as trial 0
always does, which has nobody below it. As long as one of those that might belong to the 16 is neither at the rung nor
at its end, the answer is WAIT, and the trial is parked.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

PEERS = 16


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
