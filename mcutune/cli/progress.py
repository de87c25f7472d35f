"""What the live view of a search shows, as plain values: render.py draws it, search.py fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcutune.search.progress import TrialView


@dataclass(frozen=True)
class View:
    """A moment of a search.

    `wanted`: trials in all folds together, None under a time budget. `share`: of the work done, 0 to 1. `counts`:
    trials by state. `best`: of every fold that has one. `keys`: the searched keys, in the order of the space; the
    `settings` of each trial hold a value of every one.
    """

    run: str
    wanted: int | None
    share: float
    counts: Mapping[str, int]
    best: Sequence[TrialView] = ()
    trials: Sequence[TrialView] = ()
    keys: Sequence[str] = ()
    baseline: Mapping[str, float] = field(default_factory=dict)
    packs: int = 0
    lanes: int = 0
    places: int = 0
    epochs_per_second: float | None = None
    dashboard: str | None = None
    note: str = ""


@dataclass
class Estimate:
    """Time left, from the pace since the first gain: a resumed run starts above 0, and packs take time to start."""

    opened: float | None = None
    began: float = 0.0
    first: float = 0.0

    def left(self, share: float, now: float) -> float | None:
        """Seconds left, or None while too little is known. `now`: of a monotonic clock."""
        if self.opened is None:
            self.opened, self.began, self.first = now, now, share
        if share <= self.first:
            self.began = now
        gained = share - self.first
        if gained < 0.02 or now - self.began < 3:
            return None
        return (now - self.began) * max(1 - share, 0.0) / gained

    def elapsed(self, now: float) -> float:
        return now - self.opened if self.opened is not None else 0.0


def shown_trials(view: View, most: int) -> list[TrialView]:
    """Up to `most` rows: the best finished trials first, then those that run, the furthest first."""
    ended = [row for row in view.trials if row.state == "finished" and row.score is not None]
    running = [row for row in view.trials if row.state == "running"]
    ended.sort(key=lambda row: (-(row.score or 0.0), row.fold, row.number))
    running.sort(key=lambda row: (-row.epoch, row.fold, row.number))
    top = ended[: max(most // 2, most - len(running))]
    return top + running[: most - len(top)]
