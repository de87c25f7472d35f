"""What a process that searches has to itself: a private folder, a token, its environment, its standard error."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from mcutune.errors import BadInput

_PREFIX = "mcutune-ray-"
_LONGEST = 20  # Ray puts sockets some 65 characters below its folder, and a socket's path ends at 107


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user may enter, removed at the end. Those of killed searches are removed too.

    A folder is in use while its lock is held; the lock falls with the process, however that ends.
    """
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST:
        base = Path("/tmp")
    _remove_abandoned(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    with (folder / "lock").open("w") as lock:
        try:
            _hold(lock)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _hold(lock: IO[str]) -> None:
    """Raises BadInput where the folder for temporary files lies on a file system without locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        problem = f"the file system of {Path(lock.name).parents[1]} cannot lock: {error.strerror}"
        raise BadInput(problem, hint="set TMPDIR to a folder on a local disk") from None


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / "lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def new_token(folder: Path) -> Path:
    """A file with a new secret, that only this user can read."""
    path = folder / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


@contextlib.contextmanager
def environment(values: Mapping[str, str], *, without: tuple[str, ...] = ()) -> Iterator[None]:
    """os.environ with these values and without those names, as it was before at the end."""
    before = {name: os.environ.get(name) for name in (*values, *without)}
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def stderr_into(path: Path) -> Iterator[None]:
    """What is written to standard error, also by Ray's C++, goes into a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("w") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
