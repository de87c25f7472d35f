"""Which checkpoints of ended trials stay on the disk: those of the best of every fold, of trial 0, and the certified.

Scores never change, so a trial that is not among the best `keep` will never be again; ties go to the lower number, as
for the best. What stays at the end follows from the ledger alone. What best.json named when the search was opened stays
too, for whoever reads it meanwhile. So a fold holds at most `keep` + 2 trials that have ended, and those in flight.
"""

from __future__ import annotations

import heapq
from contextlib import suppress
from pathlib import Path

from mcutune.domain.trial import State
from mcutune.errors import UserError
from mcutune.files import read_sealed
from mcutune.search.artefacts import drop_checkpoints, sweep
from mcutune.search.records import Records, TrialRow
from mcutune.search.run_folder import BEST


class Keeper:
    """Removes checkpoints once the ledger says why; a removal that a kill prevented is made up at the next opening."""

    def __init__(self, run: Path, keep: int | None) -> None:
        """`keep`: how many trials of a fold, at least 1; None keeps all that finished."""
        self._run = run
        self._keep = keep
        self._best: dict[str, list[tuple[float, int]]] = {}  # fold -> heap of (score, −number), the worst first
        self._pinned: set[tuple[str, int]] = set()
        self._gone: list[tuple[str, int]] = []

    def open(self, records: Records) -> None:
        """Take note of what has ended, and remove what a crash left and what does not stay."""
        sweep(self._run)
        with suppress(UserError, KeyError, TypeError):
            self._pinned = {(one["fold"], one["trial"]) for one in read_sealed(self._run / BEST)["best"]}
        for fold, study in records.studies.items():
            for trial in study.trials:
                self.ended(TrialRow(fold, trial.number, trial.state.value, repeats=trial.repeats, score=trial.score))
        there = {(path.parent.name, path.name) for path in self._run.glob("checkpoints/*/[0-9]*")}
        self._gone = [(fold, number) for fold, number in self._gone if (fold, str(number)) in there]
        self.drop()

    def ended(self, row: TrialRow) -> None:
        """A trial entered a state; what is to be removed by that goes at the next `drop`."""
        if row.state == State.FAILED.value:
            self._gone.append((row.fold, row.number))
        elif row.state == State.FINISHED.value and row.number and row.repeats is None and self._keep is not None:
            assert row.score is not None
            best = self._best.setdefault(row.fold, [])
            heapq.heappush(best, (row.score, -row.number))
            if len(best) > self._keep:
                self._gone.append((row.fold, -heapq.heappop(best)[1]))

    def drop(self) -> None:
        """Remove what does not stay. Call it when the ledger has said so durably."""
        for fold, number in self._gone:
            if (fold, number) not in self._pinned:
                drop_checkpoints(self._run, fold, number)
        self._gone.clear()
