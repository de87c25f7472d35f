"""`mcutune doctor --repair`: a damaged ledger back to its last good commit, and what that kept and lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mcutune.cli.text import count


@dataclass(frozen=True)
class Repaired:
    """What became of a run's ledger. `acknowledged`: commits there had been, 0 where that is not known either.

    ended, begun: trials of those that were kept. damaged: the file that was kept aside, None where nothing was changed,
    empty where there was no file.
    """

    run: str
    kept: int
    acknowledged: int
    ended: int
    begun: int
    damaged: str | None

    def sentence(self) -> str:
        """What was kept, what was lost, and how to go on."""
        if self.damaged is None:
            return f"{self.run} is sound; nothing was changed"
        lost = "how many were lost is not known"
        if self.acknowledged:
            lost = f"{count(max(self.acknowledged - self.kept, 0), 'commit')} lost"
        aside = f"; the damaged ledger stays as {self.damaged}" if self.damaged else ""
        if not self.ended + self.begun:
            return f"{self.run}: no trial could be kept, {lost}: the same search command begins anew{aside}"
        trials = f"{count(self.ended, 'ended trial')} and {self.begun} begun"
        commits = count(self.kept, "commit")
        return f"{self.run}: kept {trials} in {commits}, {lost}: the same search command repeats the rest{aside}"


def repair(folder: Path) -> Repaired:
    """Go back to the last good commit where the ledger is damaged. Raises Busy, BadInput, Damaged."""
    from mcutune.domain.trial import State
    from mcutune.errors import UserError
    from mcutune.search.ledger import read_ledger
    from mcutune.search.lock import RunLock
    from mcutune.search.rewind import rewind

    lock = RunLock(folder)
    try:
        try:
            read_ledger(folder)
            return Repaired(folder.name, 0, 0, 0, 0, None)
        except UserError as error:
            if error.exit_code != 4:
                raise
        before = _kept_aside(folder)
        kept, acknowledged = rewind(folder)
        records, _ = read_ledger(folder)
        running = sum(study.counts.get(State.RUNNING.value, 0) for study in records.studies.values())
        trials = sum(len(study.trials) for study in records.studies.values())
        aside = sorted(_kept_aside(folder) - before)
        return Repaired(folder.name, kept, acknowledged, trials - running, running, aside[0] if aside else "")
    finally:
        lock.release()


def _kept_aside(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("ledger.db.damaged-*[0-9]")}
