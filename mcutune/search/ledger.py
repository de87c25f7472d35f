"""The ledger of a run on disk: the only truth about a search.

`ledger.db` is SQLite (WAL, synchronous FULL), written by one process. Rows are only ever inserted: a state change is a
new row, so there is nothing to update, nothing to lose, and the chain has one direction. One sequence numbers the rows
of all tables. Commit n carries SHA-256(hash of commit n − 1, its own facts, its rows), so that every row is chained; a
commit is what a pack gets acknowledged, the smallest thing that can be there or not. `ledger.head` holds number and
hash of the last commit and is synced before any acknowledgement: SQLite alone loses a cut WAL without a word.

On opening, the whole chain is recomputed. The database may be one commit ahead of the head (a crash between the two
writes); anything else is damage: nothing is written, and search/rewind.py goes back to the last good commit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from mcutune.errors import BadInput, Damaged, NoResources
from mcutune.files import replacing
from mcutune.search.head import HEAD, Head, read_head
from mcutune.search.records import TABLES, Records, Row

DATABASE = "ledger.db"
_VERSION = 1
SYNCHRONOUS = "FULL"
GENESIS = sha256(b"mcutune ledger").digest()
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bytes: "BLOB"}
_ONCE = {  # what may exist only once: the terminal state of a trial or lane, above all
    "studies": "fold",
    "trials": "fold, number, state = 'running'",
    "lanes": "fold, trial, seed, CASE state WHEN 'running' THEN attempt ELSE 0 END",
    "rungs": "fold, trial, epoch",
    "epochs": "fold, trial, seed, epoch",
}
_HINT = "nothing was written; `mcutune doctor` shows what can be saved"
_FULL = (errno.ENOSPC, errno.EDQUOT)

Entry = tuple[int, str, Row]  # (sequence, table, row)


class NoSpace(NoResources):
    """The disk is full: what was to be written is still in memory, and can be written when there is room."""


class Commit(NamedTuple):
    """The facts of a commit. `until`: sequence number of its last row. `elapsed`, `gpu`: seconds searched so far."""

    number: int = 0
    until: int = 0
    at: str = ""
    elapsed: float = 0.0
    gpu: float = 0.0

    def link(self, before: bytes, entries: Sequence[Entry]) -> bytes:
        """The chain's next hash. `ascii` of str, int, float, bytes and None is the same in every Python."""
        digest = sha256(before)
        digest.update(ascii(tuple(self)).encode())
        for sequence, table, row in entries:
            digest.update(ascii((sequence, table, *row)).encode())
        return digest.digest()


class Ledger:
    """The writer. Made by `open_ledger`, under the run's lock."""

    def __init__(self, folder: Path, last: Commit, hash_: bytes, acknowledged: int) -> None:
        self.last = last
        self.hash = hash_
        self._folder = folder
        self._connection = connect(folder / DATABASE)
        self._head = Head(folder)
        self._acknowledged = acknowledged
        self._file = _identity(folder)
        self._outbox: list[Row] = []

    @property
    def pending(self) -> bool:
        """Whether anything put is not durable yet."""
        return bool(self._outbox) or self._acknowledged != self.last.number

    def put(self, row: Row) -> None:
        """Add a row to the next commit."""
        self._outbox.append(row)

    def commit(self, elapsed: float, gpu: float = 0.0) -> None:
        """Make all rows durable: when this returns, they survive a power cut.

        Raises NoSpace when the disk is full (call it again once there is room), Damaged on any other failure: after
        a failed fsync nothing is known about the disk, and nothing more is written.
        """
        with failures_of(self._folder):
            if _identity(self._folder) != self._file:
                raise Damaged(f"{self._folder / DATABASE} was moved, deleted or replaced while in use")
            if self._outbox:
                self._append(elapsed, gpu)
            if self._acknowledged != self.last.number:
                self._head.write(self.last.number, self.hash)
                self._acknowledged = self.last.number

    def _append(self, elapsed: float, gpu: float) -> None:
        names = {kind: table for table, kind in TABLES.items()}
        start = self.last.until + 1
        entries = [(start + index, names[type(row)], row) for index, row in enumerate(self._outbox)]
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        commit = Commit(self.last.number + 1, entries[-1][0], at, elapsed, gpu)
        hash_ = commit.link(self.hash, entries)
        insert(self._connection, commit, hash_, entries)
        self.last, self.hash = commit, hash_
        self._outbox.clear()

    def close(self) -> None:
        self._connection.close()
        self._head.close()


def insert(connection: sqlite3.Connection, commit: Commit, hash_: bytes, entries: Sequence[Entry]) -> None:
    """One transaction: a commit and its rows, or nothing."""
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        for table, kind in TABLES.items():
            marks = ", ".join("?" * (len(kind._fields) + 1))
            rows = [(sequence, *row) for sequence, name, row in entries if name == table]
            cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        cursor.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", (*commit, hash_))
        cursor.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.rollback()
        raise


def open_ledger(folder: Path) -> tuple[Ledger, Records]:
    """The run's ledger, new if the folder has none, verified, with the sum of its rows.

    Raises Damaged (nothing is written then: it is verified before it is opened for writing) or NoSpace.
    """
    path = folder / DATABASE
    head = read_head(folder)
    records = Records()
    with failures_of(folder):
        if not path.exists():
            if head is not None and head[0]:
                raise Damaged(f"{path} is gone, but {head[0]} commits were acknowledged", hint="restore it")
            create(path)
        last, hash_ = _verified(path, records)
        behind = last.number - (head[0] if head else 0)
        if behind not in (0, 1) or (behind == 0 and head and last.number and head[1] != hash_):
            acknowledged = f"{head[0]} were acknowledged" if head else f"{HEAD} is gone"
            raise Damaged(f"{path} ends at commit {last.number}, but {acknowledged}", hint=_HINT)
        ledger = Ledger(folder, last, hash_, last.number - behind)
    ledger.commit(last.elapsed)  # a head that is one behind is written now
    return ledger, records


def read_ledger(folder: Path, *, keep: bool = False) -> tuple[Records, Commit]:
    """The sum of a ledger's rows as of now, verified; another process may be writing. `keep`: with all epochs.

    Raises BadInput where there is no ledger, Damaged where it is damaged.
    """
    path = folder / DATABASE
    if not path.exists():
        raise BadInput(f"{folder} has no search", hint="`mcutune search` makes one")
    head = read_head(folder)
    records = Records(keep=keep)
    with failures_of(folder):
        last, _ = _verified(path, records)
    if head is not None and head[0] > last.number:
        raise Damaged(f"{path} ends at commit {last.number}, but {head[0]} were acknowledged", hint=_HINT)
    return records, last


def _verified(path: Path, records: Records) -> tuple[Commit, bytes]:
    with contextlib.closing(connect(path, read_only=True)) as connection:
        connection.execute("BEGIN")  # one snapshot for all tables
        return replay(connection, records, path)


def replay(connection: sqlite3.Connection, records: Records, path: Path) -> tuple[Commit, bytes]:
    """Verify the chain and add up all rows; the last commit and its hash. Raises Damaged."""
    last, hash_ = Commit(), GENESIS
    try:
        for commit, link, entries in chain(connection, path):
            for _, _, row in entries:
                records.apply(row)
            last, hash_ = commit, link
    except (sqlite3.Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise Damaged(f"{path} is damaged after commit {last.number}: {error}", hint=_HINT) from None
    return last, hash_


def chain(connection: sqlite3.Connection, path: Path) -> Iterator[tuple[Commit, bytes, list[Entry]]]:
    """All commits in order with their rows, each verified before it is given. Raises Damaged at the first bad one."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise Damaged(f"{path} has version {version}; this mcutune reads {_VERSION}", hint=_HINT)
    streams = [_Stream(connection, table) for table in TABLES]
    before, last = GENESIS, Commit()
    for facts in connection.execute("SELECT number, until, at, elapsed, gpu, hash FROM commits ORDER BY rowid"):
        commit, hash_ = Commit(*facts[:5]), facts[5]
        entries = sorted((entry for stream in streams for entry in stream.take(commit.until)), key=lambda e: e[0])
        if commit.number != last.number + 1 or hash_ != commit.link(before, entries):
            raise Damaged(f"{path} is damaged in commit {last.number + 1}", hint=_HINT)
        yield commit, hash_, entries
        before, last = hash_, commit
    if any(stream.next is not None for stream in streams):
        raise Damaged(f"{path} has rows after its last commit {last.number}", hint=_HINT)


class _Stream:
    """The rows of a table in their order, taken up to a sequence number."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        kind = TABLES[table]
        columns = ", ".join(("sequence", *kind._fields))
        cursor = connection.execute(f"SELECT {columns} FROM {table} ORDER BY sequence")
        self._rows = ((fields[0], table, kind._make(fields[1:])) for fields in cursor)
        self.next: Entry | None = next(self._rows, None)

    def take(self, until: int) -> Iterator[Entry]:
        while self.next is not None and self.next[0] <= until:
            yield self.next
            self.next = next(self._rows, None)


def create(path: Path) -> None:
    """A database with the tables and no rows, whole or not at all."""
    with replacing(path) as temporary, contextlib.closing(connect(temporary)) as connection:
        facts = "number INTEGER PRIMARY KEY, until INTEGER, at TEXT, elapsed REAL, gpu REAL, hash BLOB"
        connection.execute(f"CREATE TABLE commits ({facts}) STRICT")
        for table, kind in TABLES.items():
            columns = (f"{name} {_sql_type(hint)}" for name, hint in get_type_hints(kind).items())
            connection.execute(f"CREATE TABLE {table} (sequence INTEGER PRIMARY KEY, {', '.join(columns)}) STRICT")
            if table in _ONCE:
                connection.execute(f"CREATE UNIQUE INDEX {table}_once ON {table} ({_ONCE[table]})")
        for table in ("commits", *TABLES):
            for change in ("UPDATE", "DELETE"):
                refusal = "SELECT RAISE(ABORT, 'the ledger is append-only')"
                connection.execute(f"CREATE TRIGGER {table}_{change} BEFORE {change} ON {table} BEGIN {refusal}; END")
        connection.execute(f"PRAGMA user_version = {_VERSION}")


def _sql_type(hint: Any) -> str:
    return _SQL_TYPES[next(iter(get_args(hint)), hint)]


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection as the ledger needs it; links are not followed."""
    for suffix in ("", "-wal", "-shm"):
        if path.with_name(path.name + suffix).is_symlink():
            raise Damaged(f"{path.name}{suffix} is a link; links are not followed")
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30)
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.lstat(folder / DATABASE)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def failures_of(folder: Path) -> Iterator[None]:
    """Failures of SQLite and the file system as NoSpace where room helps, as Damaged where it does not."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in _FULL:
            raise NoSpace(f"the disk of {folder} is full", hint="the search goes on when there is room") from error
        raise Damaged(f"{folder}: {error}", hint="nothing more is written; check the disk") from error
