"""Back to the last good commit of a damaged ledger; the search repeats the rest identically."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from mcutune.errors import Damaged
from mcutune.files import sync_folder
from mcutune.search.commits import GENESIS, Commit
from mcutune.search.head import read_head, write_head
from mcutune.search.ledger import DATABASE, WITH_LOG, chain, connect, create, failures_of, insert

_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH)


def rewind(folder: Path) -> tuple[int, int]:
    """Keep the commits whose chain holds; returns (kept, acknowledged). Call it under the run's lock.

    The damaged files stay beside, as `ledger.db.damaged-N`. One that is killed is made up by the next. Raises NoSpace
    or Damaged.
    """
    path, whole, fresh = (folder / f"{DATABASE}{suffix}" for suffix in ("", ".part", ".new.part"))
    head = None
    with contextlib.suppress(Damaged):
        head = read_head(folder)
    with failures_of(folder):
        _keep_aside(path)
        # A rewind that was killed may have left all that is good in `whole`, and taken the write-ahead log away.
        found = [_copy_good(source, fresh) for source in (path, whole) if source.exists()]
        if not found:
            create(fresh)
        longest = max(found, key=lambda one: one[0].number, default=(Commit(), GENESIS))
        if found and longest is not found[-1]:
            _copy_good(path, fresh)
        kept, hash_ = longest
        fresh.replace(whole)
        sync_folder(folder)
        for suffix in ("-wal", "-shm"):
            path.with_name(DATABASE + suffix).unlink(missing_ok=True)
        whole.replace(path)
        sync_folder(folder)
        write_head(folder, kept.number, hash_)
    return kept.number, head[0] if head else 0


def _keep_aside(path: Path) -> None:
    number = next(n for n in range(1, 10_000) if not path.with_name(f"{DATABASE}.damaged-{n}").exists())
    for suffix in ("-wal", ""):
        if path.with_name(DATABASE + suffix).exists():
            shutil.copy2(path.with_name(DATABASE + suffix), path.with_name(f"{DATABASE}.damaged-{number}{suffix}"))


def _copy_good(source: Path, target: Path) -> tuple[Commit, bytes]:
    """The good commits of a database in a new one at `target`, synced; the last of them. Raises sqlite3.Error, OSError.

    What the disk refuses to read or write is no sign of damage: nothing is taken for lost because of it.
    """
    for suffix in ("", "-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    create(target)
    last, hash_ = Commit(), GENESIS
    with (
        contextlib.closing(connect(target, scratch=True)) as writer,
        contextlib.closing(connect(source, read_only=True)) as reader,
    ):
        good = chain(reader, source)
        while True:
            try:
                found = next(good, None)
            except (Damaged, ValueError, TypeError):
                found = None
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE:
                    raise
                found = None
            if found is None:
                break
            insert(writer, *found)
            last, hash_ = found
        writer.execute(WITH_LOG)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return last, hash_
