"""How packs on CPUs share what is to be trained, so that they end together. Decides speed, never results.

Lanes whose ranks are padded alike run side by side as a group, and groups one after the other (training/stack.py).
Work is in units of what a frozen lane's epoch takes more for each number more that its rank is padded to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# The part of an epoch that is the same however many lanes a group has, and the part of each lane's that is the same
# whatever its rank. As measured with frozen encoders: .3 s a group; .040 s a lane padded to 8, .055 s one padded to 16.
# Where encoders are trained, too, they are nearly all of it.
_GROUP = {"frozen": 150, "trained": 0}
_LANE = {"frozen": 12, "trained": 64}
MOST_PACKS = 16  # at work; more share by places alone, so that a word costs the same however many there are
PLACES = 1.5  # times its share of the lanes: so many places a pack has, since some get many lanes of small rank


@dataclass(frozen=True)
class Load:
    """What a lane still takes: its padded rank, its encoder, the epochs that are left."""

    padded: int
    encoder: str
    epochs: int

    @property
    def work(self) -> int:
        return (_LANE[self.encoder] + self.padded) * self.epochs


def work_of(loads: Iterable[Load]) -> int:
    """The work of lanes in one pack: their own, and that of the groups that they make."""
    own, groups = 0, dict[int, int]()
    for load in loads:
        own += load.work
        groups[load.padded] = max(groups.get(load.padded, 0), _GROUP[load.encoder] * load.epochs)
    return own + sum(groups.values())


def fair_number(
    mine: Sequence[Load], theirs: Iterable[Iterable[Load]], wanted: Sequence[Load], rest: Iterable[Load], packs: int
) -> int:
    """How many of the `wanted` lanes a pack should take that trains `mine`, in their order.

    theirs: what each of the others trains. rest: what else waits. packs: how many share the work, also those that have
    not come yet. It takes lanes until it has its share of the whole: as long as lanes wait, one of these has less than
    that. Each pack but one may have to begin a group that another has, too.
    """
    waiting = [*wanted, *rest]
    again = (packs - 1) * max((_GROUP[load.encoder] * load.epochs for load in waiting), default=0)
    whole = work_of(mine) + sum(work_of(loads) for loads in theirs) + work_of(waiting) + again
    numbers = range(len(wanted) + 1)
    return min(len(wanted), bisect_left(numbers, whole / packs, key=lambda n: work_of([*mine, *wanted[:n]])))
