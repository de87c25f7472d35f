"""Commits: the links of a ledger's chain. A commit is one row of the database, its facts in it as text.

`steps` are facts of trials on their way: starts, lanes, rungs, epochs. They are needed while the trial runs, and when
somebody asks for the whole. `kept` are the facts that every reader needs: studies, events, and of each trial that has
ended its last row, which says all that is kept of it. So whoever opens a ledger hashes every byte, but reads only
`kept`, and of `steps` what comes from `since` on, where the oldest trial starts that has not ended.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from mcutune.domain.trial import State
from mcutune.search.records import TABLES, EpochRow, EventRow, Row, StudyRow, TrialRow

GENESIS = sha256(b"mcutune ledger").digest()
_NAMES = {kind: table for table, kind in TABLES.items()}
_BLOBS = EpochRow._fields.index("scores") + 1  # where the blobs of an encoded epoch begin
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # of ASCII only: the same in any encoding


class Commit(NamedTuple):
    """The facts of a commit. `elapsed`, `gpu`: seconds searched so far; `epochs`: of all lanes so far.

    `since`: the first commit that holds steps of a trial that had not ended after this one; its own successor's number
    if there is none. `kept`, `steps`: JSON, a list of rows, each [table, its fields].
    """

    number: int = 0
    at: str = ""
    elapsed: float = 0.0
    gpu: float = 0.0
    epochs: int = 0
    since: int = 1
    kept: bytes = b"[]"
    steps: bytes = b"[]"

    def link(self, before: bytes) -> bytes:
        """The chain's next hash. `ascii` of str, int and float is the same in every Python; JSON holds no line feed."""
        digest = sha256(before)
        digest.update(b"%s\n%s\n" % (ascii(self[:-2]).encode(), self.kept))
        digest.update(self.steps)
        return digest.digest()

    def rows(self, *, steps: bool) -> Iterator[Row]:
        """Its kept rows, with `steps` in between: after the studies they belong to, before the ends they lead to."""
        kept = decoded(self.kept)
        if not steps:
            yield from kept
            return
        yield from (row for row in kept if isinstance(row, StudyRow))
        yield from decoded(self.steps)
        yield from (row for row in kept if not isinstance(row, StudyRow))

    def steps_of(self, fold: str, trial: int) -> Iterator[Row]:
        """The steps of one trial; the other rows are not made, a text without it is not read."""
        found = json.loads(self.steps) if _encode([fold, trial])[1:-1].encode() in self.steps else []
        return (_row(fields) for fields in found if fields[1] == fold and fields[2] == trial)


def is_kept(row: Row) -> bool:
    """Whether every reader needs the row, however long ago it was written."""
    return isinstance(row, StudyRow | EventRow) or (isinstance(row, TrialRow) and row.state != State.RUNNING.value)


def encoded(rows: Iterable[Row]) -> bytes:
    """Rows as JSON text. Raises ValueError for a number that is not finite."""
    return _encode([_fields(row) for row in rows]).encode()


def _fields(row: Row) -> tuple[Any, ...]:
    if isinstance(row, EpochRow):
        blobs = (row.scores, row.probabilities, row.divergences)
        return ("epochs", *row[: -len(blobs)], *(b64encode(content).decode() for content in blobs))
    return (_NAMES[type(row)], *row)


def decoded(text: bytes) -> list[Row]:
    """The rows of a text. Raises ValueError, KeyError, IndexError or TypeError if they are none."""
    return [_row(fields) for fields in json.loads(text)]


def _row(fields: list[Any]) -> Row:
    kind: type[Any] = TABLES[fields[0]]
    if kind is EpochRow:
        fields[_BLOBS:] = map(b64decode, fields[_BLOBS:])
    row: Row = kind(*fields[1:])  # a ledger from before a field was added lacks its value: there is a default then
    return row
