"""Rows of a small search, for tests of the ledger."""

from __future__ import annotations

from pathlib import Path

from mcutune.search.ledger import open_ledger
from mcutune.search.records import (
    EpochRow,
    LaneRow,
    Row,
    RungRow,
    StudyRow,
    TrialRow,
    blob,
)  # fmt: skip

STUDY = StudyRow("1", "classification", "t", "s", '["a"]', '["a"]', "ua", '"mean"', '{"rank": 4}', "h")


def trial_rows(number: int) -> list[Row]:
    """A trial of one lane with three epochs, from its start to its end."""
    lane = ("1", number, 0)
    values = (0.1 + 0.2, 1e-300, -0.0)
    return [
        TrialRow("1", number, "running", '{"rank":2}'),
        LaneRow(*lane, 1, "running"),
        *(EpochRow(*lane, 1, e, 0.1 * e, 1 / 3, blob(values), blob(values), blob(values)) for e in (1, 2, 3)),
        RungRow("1", number, 3, 0.3),
        LaneRow(*lane, 1, "finished", "päck", 3, 0.3, "w" * 64, "c" * 64),
        TrialRow("1", number, "finished", '{"rank":2}', score=0.3, digest=f"{number:064x}", rungs="[[3,0.3]]"),
    ]


def fill(folder: Path, trials: int = 3) -> None:
    """A ledger with a commit for the study and one a trial, closed."""
    ledger, _ = open_ledger(folder)
    for rows in ([STUDY], *(trial_rows(k) for k in range(trials))):
        for row in rows:
            ledger.put(row)
        ledger.commit(1.5)
    ledger.close()
