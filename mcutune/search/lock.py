"""One writer a run: a lock that falls with its process, and says who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcutune.errors import BadInput, Busy
from mcutune.files import NO_LOCKS

NAME = ".lock"  # held by the one that writes the ledger
COMMAND = ".command"  # held by the command that a person started, from before Ray is there to after it is gone
PATIENCE = 20.0  # seconds to wait for a holder whose driver is gone: Ray ends its actors a little later
_SIGNED = 1.0  # seconds until whoever has taken a lock has said so in it


class RunLock:
    """`flock` on a file of the run's folder; no file to delete after a crash, no wait, no stale lock."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = NAME,
        driver: int | None = None,
        patience: float = PATIENCE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the lock. `driver`: pid of the process for which this one works (itself if None).

        Raises Busy naming pid, host and since, BadInput where the file system cannot lock.
        """
        self._file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            waited = 0.0
            while not self._try():
                holder = _read(self._file)
                unsigned = not holder and waited < _SIGNED  # taken this instant: soon it says by whom
                if not unsigned and (_runs(holder, "driver") or waited >= patience):
                    raise Busy(f"{folder} is in use by {_shown(holder)}", hint="wait for it, or `mcutune stop` it")
                pause(0.25)
                waited += 0.25
            self._sign(driver or os.getpid())
        except BaseException:
            os.close(self._file)
            raise

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise BadInput(
                    f"the file system of the run folder cannot lock: {error.strerror}",
                    hint=NO_LOCKS,
                ) from None
            raise
        return True

    def _sign(self, driver: int) -> None:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "pid_started": _started(os.getpid()),
            "driver": driver,
            "driver_started": _started(driver),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(facts).encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def holder_of(folder: Path) -> dict[str, Any] | None:
    """Who is at work in the folder now (pid, host, since): its writer, else a command whose writer is not there yet.

    None of neither. Only looks: probing a lock could make a writer fail.
    """
    return _holder(folder / NAME) or _holder(folder / COMMAND)


def _holder(path: Path) -> dict[str, Any] | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        holder = _read(file)
    finally:
        os.close(file)
    return holder if holder and _runs(holder, "pid") else None


def _read(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(os.pread(file, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}


def _runs(holder: dict[str, Any], who: str) -> bool:
    """Whether a process named in the lock still runs; one on another host counts as running."""
    if holder.get("host") != socket.gethostname():
        return bool(holder)
    pid, started = holder.get(who), holder.get(f"{who}_started")
    return isinstance(pid, int) and started is not None and _started(pid) == started


def _started(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks since boot: tells a reused pid apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _shown(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
