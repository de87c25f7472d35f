"""Files that are whole or absent: atomic writes, hashes, strict names, no links followed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mcutune.errors import BadInput, Damaged, NoResources, UserError
from mcutune.inert import inert

_AGAIN = "`mcutune robustness` makes it anew"
NO_LOCKS = "put MCUTUNE_HOME on a local disk"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # may pass: what waits for room goes on
PROCESS_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_RAISE = "raise the limit (`ulimit -n` for open files), then the same command continues"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def home() -> Path:
    """The folder under which datasets, encoders and runs live: MCUTUNE_HOME, else the working folder."""
    return Path(os.environ.get("MCUTUNE_HOME") or ".").resolve()


def checked_name(name: str, what: str) -> str:
    """The name itself, or BadInput: names become folders, so they are strict."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{what} name '{inert(name, limit=80)}' is not valid",
            hint="1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    return name


def exchange_folders(fresh: Path, target: Path) -> bool:
    """Let two folders change names at once, so that a kill finds the one or the other; False where that cannot be."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return rename is not None and rename(here, os.fsencode(fresh), here, os.fsencode(target), exchange) == 0


def unusable(message: str, error: Exception, hint: str | None = None) -> UserError:
    """What to raise of a file that failed: Damaged, or NoResources where the process lacks descriptors or memory.

    The file is blameless then, and nobody should be sent to repair it.
    """
    if getattr(error, "errno", None) in PROCESS_LACKS:
        return NoResources(message, hint=_RAISE)
    return Damaged(message, hint=hint)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced and renamed over it, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space, for hashing. Raises ValueError for NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically."""
    write_bytes(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n")


def read_bytes(path: Path, *, limit: int = 1 << 32) -> bytes:
    """The content of a regular file, links not followed. Raises BadInput if absent, Damaged if not a regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except OSError as error:
        raise unusable(f"{path} cannot be read: {error.strerror}", error, "links are not followed") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path} is not a regular file")
        if status.st_size > limit:
            raise Damaged(f"{path} has {status.st_size:,} bytes, more than the {limit:,} allowed")
        return file.read()


def read_json(path: Path, *, limit: int = 1 << 28) -> Any:
    """Parsed JSON of a regular file, every number finite, every text whole characters. Raises Damaged."""
    content = read_bytes(path, limit=limit)
    try:
        value = json.loads(content, parse_constant=_finite, parse_float=_finite)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # refuses half a character
    except (ValueError, RecursionError):
        raise Damaged(f"{path} is not valid JSON", hint="it was written whole; restore it or make it anew") from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with the hash of all else in it under `hash`."""
    rest = {key: one for key, one in value.items() if key != "hash"}
    return {**rest, "hash": sha256(canonical_json(rest))}


def whole(value: Any, path: Path) -> Any:
    """A JSON value that is what was written, where its `hash` tells; earlier versions wrote none. Raises Damaged.

    A bit flipped in the name of the hash leaves all else as it was.
    """
    try:
        fits = not isinstance(value, dict) or "hash" not in value or value == sealed(value)
    except ValueError:  # NaN, or half a character
        fits = False
    if not fits:
        raise Damaged(f"{path} is not what was written", hint="its own hash differs; restore it or make it anew")
    return value


def read_sealed(path: Path) -> Any:
    """JSON whose `hash` is of all else in it. Raises Damaged; what schema 1 wrote has no hash and is taken as it is."""
    found = read_json(path)
    try:
        whole = found == sealed(found) or (found["schema"] == 1 and "hash" not in found)
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise Damaged(f"{path} is not what was written", hint="its own hash differs; nothing was written")
    return found


def hash_beside(path: Path) -> Path:
    """Where the SHA-256 of a file lies that others may read, in the form of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def write_hash(path: Path) -> None:
    write_bytes(hash_beside(path), f"{sha256_file(path)}  {path.name}\n".encode())


def refuse_other_hash(path: Path) -> None:
    """Raises Damaged where a file is not the one whose hash lies beside it; one without is taken as it is."""
    beside = hash_beside(path)
    if beside.exists() and read_bytes(beside, limit=4096).split()[:1] != [sha256(read_bytes(path)).encode()]:
        raise Damaged(f"{path} is not what was written: its SHA-256 is not that of {beside.name}", hint=_AGAIN)


def keep_aside(path: Path) -> Path | None:
    """Give a damaged file or folder the first free name PATH.damaged-N, for whoever wants to look; the new path."""
    for number in range(1, 10_000):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not os.path.lexists(aside):
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
                return aside
            break
    return None


def refuse_links(folder: Path, *names: str) -> None:
    """Raises Damaged where one of these places in a folder (or the folder itself) is a symbolic link."""
    for path in (folder, *(folder / name for name in names)):
        if path.is_symlink():
            raise Damaged(f"{path} is a link; links are not followed", hint="remove it, or put what it names there")


def append_to(path: Path) -> IO[str]:
    """A text file open for appending, a link not followed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
