"""The summary of a running search, kept by its writer for those who ask how far it is: RUN/summary.json.

The writer has verified the whole ledger and holds what it adds up to, so a reader need not do so again: it takes the
snapshot if its bytes are what was written, if the commit it was made of is in the ledger with the same hash, and if it
is of now: of the last commit, or not older than the writer promised. In any other case, and of a run that nobody holds,
the ledger is read and verified from its first commit. Nothing is lost with a snapshot, so it is not synced.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcutune.errors import UserError
from mcutune.files import canonical_json, read_sealed, sealed
from mcutune.search.ledger import DATABASE, connect

SNAPSHOT = "summary.json"
PAUSE = 1.0  # seconds between two snapshots at least
_SHARE = 50  # and at least so many times what one takes: 2 % of the writer's time
_GRACE = 1.0  # seconds that the next snapshot may be late
_LAST = "SELECT number, hash FROM commits ORDER BY number DESC LIMIT 1"


class Snapshots:
    """The writer."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._path = folder / SNAPSHOT
        self._clock = clock
        self._next = -float("inf")
        self._number = -1
        self._path.unlink(missing_ok=True)  # a writer before this one made promises that nobody keeps

    def keep(self, number: int, hash_: bytes, facts: Callable[[], dict[str, Any]]) -> None:
        """Write what `facts` gives as of a commit, unless that was done or is too early. Never fails."""
        if number == self._number or self._clock() < self._next:
            return
        begun = time.monotonic()
        content = facts()
        pause = max(PAUSE, _SHARE * (time.monotonic() - begun))
        until = [socket.gethostname(), time.monotonic() + pause + _GRACE]
        body = {"number": number, "link": hash_.hex(), "until": until, "facts": content}
        self._next, self._number = self._clock() + pause, number
        with contextlib.suppress(OSError):  # no room for it: readers read the ledger
            self._write(canonical_json(sealed(body)))

    def _write(self, content: bytes) -> None:
        temporary = self._path.with_name(f".{SNAPSHOT}.part")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o644), "wb") as file:
            file.write(content)
        temporary.replace(self._path)


def read_snapshot(folder: Path) -> dict[str, Any] | None:
    """The facts of a run that is at work on this machine; None where they are not there, not whole, or not of now."""
    with contextlib.suppress(UserError, sqlite3.Error, KeyError, TypeError, ValueError):
        found = read_sealed(folder / SNAPSHOT)
        with contextlib.closing(connect(folder / DATABASE, read_only=True)) as connection:
            last, hash_ = connection.execute(_LAST).fetchone()
            if found["number"] != last:
                one = "SELECT hash FROM commits WHERE number = ?"
                hash_ = connection.execute(one, (found["number"],)).fetchone()[0]
        host, until = found["until"]
        current = found["number"] == last or (host == socket.gethostname() and time.monotonic() < until)
        facts: dict[str, Any] = found["facts"]
        return facts if current and hash_.hex() == found["link"] else None
    return None
