"""The ledger of a run on disk: the only truth about a search.

`ledger.db` is SQLite (WAL, synchronous FULL), written by one process. Rows are only ever inserted: a state change is a
new row, so there is nothing to update, nothing to lose, and the chain has one direction. A commit is what a pack gets
acknowledged, the smallest thing that can be there or not: one row of the database, with its facts in it (commits.py).
Commit n carries SHA-256(hash of commit n − 1, its facts), so that every fact is chained. The tables of facts (studies,
trials, lanes, rungs, epochs, events) are views, for whoever asks in SQL. `ledger.head` holds number and hash of the
last commit and is synced before any acknowledgement: SQLite alone loses a cut WAL without a word.

On opening, the whole chain is recomputed. The database may be one commit ahead of the head (a crash between the two
writes); anything else is damage: nothing is written, and search/rewind.py goes back to the last good commit.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mcutune.domain.trial import State
from mcutune.errors import BadInput, Damaged, NoResources, UserError
from mcutune.files import DISK_FULL, replacing, sync_folder, unusable
from mcutune.search.commits import GENESIS, Commit, encoded, is_kept
from mcutune.search.head import HEAD, Head, read_head
from mcutune.search.records import TABLES, EpochRow, Records, Row, StudyRow, TrialRecord, TrialRow

DATABASE = "ledger.db"
_VERSION = 2
SYNCHRONOUS = "FULL"
_HINT = "nothing was written; `mcutune doctor` shows what can be saved"
_ROOM = "the search goes on when there is room"
_PAGES = 8 << 12  # bytes of a commit beside its facts: pages of the tree that are written anew
_FACTS = "number INTEGER PRIMARY KEY, at TEXT, elapsed REAL, gpu REAL, epochs INTEGER, since INTEGER"
_CHAIN = """SELECT number, at, elapsed, gpu, epochs, since, CAST(kept AS BLOB), CAST(steps AS BLOB), hash FROM commits
WHERE number BETWEEN ? AND ? ORDER BY number"""
_LARGEST = 2**63 - 1
WITH_LOG = "PRAGMA journal_mode = WAL"


class NoSpace(NoResources):
    """The disk is full: what was to be written is still in memory, and can be written when there is room."""


Begun = dict[tuple[str, int], int]  # fold and number of the running trials -> the commit of their first row


def _note(begun: Begun, row: TrialRow, commit: int) -> None:
    if row.state == State.RUNNING.value:
        begun[row.fold, row.number] = commit
    elif begun.pop((row.fold, row.number), None) is None:
        raise ValueError(f"trial {row.number} of fold {row.fold} is not running, so it cannot be {row.state}")


class Ledger:
    """The writer. Made by `open_ledger`, under the run's lock."""

    def __init__(self, folder: Path, last: Commit, hash_: bytes, acknowledged: int, begun: Begun) -> None:
        self.last = last
        self.hash = hash_
        self._folder = folder
        self._connection = connect(folder / DATABASE)
        self._head = Head(folder)
        self._acknowledged = acknowledged
        self._file = _identity(folder)
        self._begun = begun
        self._outbox: list[Row] = []
        self._settled = False  # whether the names of its files are durable

    @property
    def pending(self) -> bool:
        """Whether anything put is not durable yet."""
        return bool(self._outbox) or self._acknowledged != self.last.number

    def put(self, row: Row) -> None:
        """Add a row to the next commit. Raises ValueError for the end of a trial that is not running."""
        if isinstance(row, TrialRow):
            _note(self._begun, row, self.last.number + 1)
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
                try:
                    self._append(elapsed, gpu)
                except sqlite3.OperationalError as error:
                    raise self._no_space(error) from error
                if not self._settled:  # SQLite takes no notice of a folder that cannot be synced
                    sync_folder(self._folder)
                    self._settled = True
            if self._acknowledged != self.last.number:
                self._head.write(self.last.number, self.hash)
                self._acknowledged = self.last.number

    def _append(self, elapsed: float, gpu: float) -> None:
        number = self.last.number + 1
        commit = Commit(
            number=number,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            elapsed=float(elapsed),
            gpu=float(gpu),
            epochs=self.last.epochs + sum(isinstance(row, EpochRow) for row in self._outbox),
            since=next(iter(self._begun.values()), number + 1),
            kept=encoded(row for row in self._outbox if is_kept(row)),
            steps=encoded(row for row in self._outbox if not is_kept(row)),
        )
        hash_ = commit.link(self.hash)
        insert(self._connection, commit, hash_)
        self.last, self.hash = commit, hash_
        self._outbox.clear()

    def _no_space(self, error: sqlite3.OperationalError) -> Exception:
        """What to raise of a failed commit: where the disk is full, how much it has to have."""
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            return error
        needed = len(encoded(self._outbox)) + _PAGES
        return NoSpace(f"the disk of {self._folder} is full: a commit needs {needed:,} bytes", hint=_ROOM)

    def close(self, *, untouched: bool = False) -> None:
        """`untouched`: the log stays as it is, as after a crash; else SQLite copies it into the database."""
        with contextlib.ExitStack() as stack:
            if untouched:
                with contextlib.suppress(sqlite3.Error, UserError):
                    # SQLite leaves the log alone while there is another reader, and to one that cannot write.
                    reader = stack.enter_context(contextlib.closing(connect(self._folder / DATABASE, read_only=True)))
                    reader.execute("SELECT number FROM commits LIMIT 1").fetchall()
            self._connection.close()
        self._head.close()


def insert(connection: sqlite3.Connection, commit: Commit, hash_: bytes) -> None:
    """One transaction: a commit, or nothing."""
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        facts = (*commit[:-2], commit.kept.decode(), commit.steps.decode(), hash_)
        cursor.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", facts)
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
    records = Records(partial=True)
    with failures_of(folder):
        if not path.exists():
            _refuse_gone(path, head)
            create(path)
        last, hash_, begun = _verified(path, records)
        behind = last.number - (head[0] if head else 0)
        if behind not in (0, 1) or (behind == 0 and head and last.number and head[1] != hash_):
            acknowledged = f"{head[0]} were acknowledged" if head else f"{HEAD} is gone"
            raise Damaged(f"{path} ends at commit {last.number}, but {acknowledged}", hint=_HINT)
        ledger = Ledger(folder, last, hash_, last.number - behind, begun)
    try:
        ledger.commit(last.elapsed)  # a head that is one behind is written now
    except BaseException:
        ledger.close(untouched=True)
        raise
    return ledger, records


def _refuse_gone(path: Path, head: tuple[int, bytes] | None) -> None:
    """Raises Damaged where there was a ledger."""
    if head is not None and head[0]:
        raise Damaged(f"{path} is gone, but {head[0]} commits were acknowledged", hint="restore it")


def read_ledger(folder: Path, *, keep: bool = False) -> tuple[Records, Commit]:
    """The sum of a ledger's rows as of now, verified; another process may be writing. `keep`: with all lanes, epochs.

    Raises BadInput where there is no ledger, Damaged where it is damaged.
    """
    path = folder / DATABASE
    if not path.exists():
        _refuse_gone(path, read_head(folder))
        raise BadInput(f"{folder} has no search", hint="`mcutune search` makes one")
    head = read_head(folder)
    records = Records(keep=keep, partial=not keep)
    with failures_of(folder):
        last, _, _ = _verified(path, records)
    if head is not None and head[0] > last.number:
        raise Damaged(f"{path} ends at commit {last.number}, but {head[0]} were acknowledged", hint=_HINT)
    return records, last


def _verified(path: Path, records: Records) -> tuple[Commit, bytes, Begun]:
    """The last commit, its hash, and what runs. Raises Damaged."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        connection.execute("BEGIN")  # one snapshot for all that is read
        with _no_collector():
            return replay(connection, records, path)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Python's collector of cycles would walk over the growing records again and again, and there are none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def replay(connection: sqlite3.Connection, records: Records, path: Path) -> tuple[Commit, bytes, Begun]:
    """Verify the whole chain and add up its rows: all kept ones, and the steps that the records want."""
    last, hash_ = Commit(), GENESIS
    ends: dict[tuple[str, int], int] = {}
    begun: Begun = {}
    try:
        since = 1 if records.keep else _since(connection, _LARGEST)
        for commit, link in chain(connection, path):
            for row in commit.rows(steps=commit.number >= since):
                records.apply(row)
                if isinstance(row, TrialRow):
                    (begun if row.state == State.RUNNING.value else ends)[row.fold, row.number] = commit.number
            last, hash_ = commit, link
        records.complete(last.epochs)
        for fold, study in records.studies.items():
            for trial in study.shown:
                if not trial.lanes:
                    _read_lanes(connection, path, study.row, trial, ends[fold, trial.number])
    except (sqlite3.Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise _blamed(f"{path} cannot be read after commit {last.number}: {error}", error, _HINT) from None
    return last, hash_, {key: number for key, number in begun.items() if key not in ends}


def _since(connection: sqlite3.Connection, number: int) -> int:
    """The first commit with steps of a trial that ran after commit `number`, or the last one before it."""
    found = connection.execute("SELECT since FROM commits WHERE number <= ? ORDER BY number DESC LIMIT 1", (number,))
    return int(next(found, (1,))[0])


def _read_lanes(connection: sqlite3.Connection, path: Path, study: StudyRow, trial: TrialRecord, end: int) -> None:
    """The lanes of a trial that ended in commit `end`, each with its best epoch, from the commits it ran in."""
    alone = Records(partial=True)
    alone.apply(study)
    for commit, _ in chain(connection, path, min(end, _since(connection, end - 1)), end):
        for row in commit.steps_of(study.fold, trial.number):
            alone.apply(row)
    trial.lanes = alone.studies[study.fold].running[trial.number].lanes
    for lane in trial.lanes:
        lane.top, lane.epochs = lane.best(), []


def chain(
    connection: sqlite3.Connection, path: Path, first: int = 1, last: int = _LARGEST
) -> Iterator[tuple[Commit, bytes]]:
    """The commits from `first` to `last` with their hashes, each verified before it is given.

    Raises Damaged at the first bad one, BadInput for a ledger of an older mcutune.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 1:
        remedy = "end the run with the mcutune of its manifest.json, or search anew under another --name"
        raise BadInput(f"{path} was written by an older mcutune (version 1; this one reads {_VERSION})", hint=remedy)
    if version != _VERSION:
        raise Damaged(f"{path} has version {version}; this mcutune reads {_VERSION}", hint=_HINT)
    found = connection.execute("SELECT hash FROM commits WHERE number = ?", (first - 1,)).fetchone()
    before, number = found[0] if found else GENESIS, first
    for facts in connection.execute(_CHAIN, (first, last)):
        commit, hash_ = Commit._make(facts[:-1]), facts[-1]
        if commit.number != number or hash_ != commit.link(before):
            raise Damaged(f"{path} is damaged in commit {number}", hint=_HINT)
        yield commit, hash_
        before, number = hash_, number + 1


def create(path: Path) -> None:
    """A database with the tables and no rows, whole or not at all."""
    with replacing(path) as temporary, contextlib.closing(connect(temporary, scratch=True)) as connection:
        connection.execute(f"CREATE TABLE commits ({_FACTS}, kept TEXT, steps TEXT, hash BLOB) STRICT")
        for change in ("UPDATE", "DELETE"):
            refusal = "SELECT RAISE(ABORT, 'the ledger is append-only')"
            connection.execute(f"CREATE TRIGGER commits_{change} BEFORE {change} ON commits BEGIN {refusal}; END")
        for table, kind in TABLES.items():
            columns = ", ".join(f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(kind._fields, 1))
            facts = "(SELECT number, kept AS rows FROM commits UNION ALL SELECT number, steps FROM commits)"
            chosen = f"json_each(facts.rows) WHERE json_extract(value, '$[0]') = '{table}'"
            connection.execute(f"CREATE VIEW {table} AS SELECT {columns} FROM {facts} AS facts, {chosen}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute(
            WITH_LOG
        )  # here and not where it is in use: a reader cannot mend what a kill leaves half done


def connect(path: Path, *, read_only: bool = False, scratch: bool = False) -> sqlite3.Connection:
    """A connection as the ledger needs it; links are not followed.

    `scratch`: to a file that is not in its place yet, and is synced before it gets there. It has no write-ahead log:
    SQLite takes no notice of a failure to copy that into the file when the connection is closed.
    """
    for suffix in ("", "-wal", "-shm"):
        if path.with_name(path.name + suffix).is_symlink():
            raise Damaged(f"{path.name}{suffix} is a link; links are not followed")
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30)
    try:
        if scratch:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
        elif not read_only:
            connection.execute(WITH_LOG)
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
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in DISK_FULL:
            raise NoSpace(f"the disk of {folder} is full", hint=_ROOM) from error
        raise _blamed(f"{folder}: {error}", error, "nothing more is written; check the disk") from error


def _blamed(message: str, error: Exception, hint: str) -> UserError:
    """Damaged, or NoResources where the process lacks memory or descriptors: SQLite only says that it cannot open."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOMEM:
        error = OSError(errno.ENOMEM, str(error))
    elif code == sqlite3.SQLITE_CANTOPEN and not _descriptors_left():
        error = OSError(errno.EMFILE, str(error))
    return unusable(message, error, hint)


def _descriptors_left() -> bool:
    """Whether as many files can be opened as SQLite opens: a database, its log, its index, a folder to sync."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(4))
        return True
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
