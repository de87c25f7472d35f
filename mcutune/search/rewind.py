"""Back to the last good commit of a damaged ledger; the search repeats the rest identically."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from mcutune.errors import Damaged
from mcutune.files import sync_folder
from mcutune.search.commits import GENESIS, Commit
from mcutune.search.head import HEAD, Head, read_head
from mcutune.search.ledger import DATABASE, chain, connect, create, failures_of, insert


def rewind(folder: Path) -> tuple[int, int]:
    """Keep the commits whose chain holds; returns (kept, acknowledged). Call it under the run's lock.

    The damaged files stay beside, as `ledger.db.damaged-N`. Raises NoSpace or Damaged.
    """
    path, fresh = folder / DATABASE, folder / f"{DATABASE}.part"
    head = None
    with contextlib.suppress(Damaged):
        head = read_head(folder)
    with failures_of(folder):
        number = next(n for n in range(1, 10_000) if not path.with_name(f"{DATABASE}.damaged-{n}").exists())
        aside = path.with_name(f"{DATABASE}.damaged-{number}")
        for suffix in ("", "-wal"):
            if path.with_name(DATABASE + suffix).exists():
                shutil.copy2(path.with_name(DATABASE + suffix), aside.with_name(aside.name + suffix))
        fresh.unlink(missing_ok=True)
        create(fresh)
        kept, hash_ = _copy_good(path, fresh)
        for suffix in ("-wal", "-shm"):
            path.with_name(DATABASE + suffix).unlink(missing_ok=True)
        fresh.replace(path)
        sync_folder(folder)
        (folder / HEAD).unlink(missing_ok=True)
        with contextlib.closing(Head(folder)) as fresh_head:
            if kept.number:
                fresh_head.write(kept.number, hash_)
    return kept.number, head[0] if head else 0


def _copy_good(source: Path, target: Path) -> tuple[Commit, bytes]:
    last, hash_ = Commit(), GENESIS
    with contextlib.closing(connect(target)) as writer, contextlib.ExitStack() as stack:
        try:
            good = chain(stack.enter_context(contextlib.closing(connect(source, read_only=True))), source)
        except sqlite3.Error:
            return last, hash_
        while True:
            try:
                found = next(good, None)
            except (Damaged, sqlite3.Error, ValueError, TypeError):
                found = None
            if found is None:
                return last, hash_
            insert(writer, *found)
            last, hash_ = found
