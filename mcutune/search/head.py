"""The head of the ledger's chain: number and hash of the last acknowledged commit, in a file of its own.

Two slots of one line each, written in turn in place and synced: one sync a commit, no room needed, and a write torn by
a power cut leaves the other slot, which is one commit older and so within what a crash explains.
"""

from __future__ import annotations

import os
from pathlib import Path

from mcutune.errors import Damaged
from mcutune.files import read_bytes, replacing, sha256, write_bytes

HEAD = "ledger.head"
_SLOT = 128  # bytes, the newline included


class Head:
    """The writer."""

    def __init__(self, folder: Path) -> None:
        """Open the head, made anew where there is none. Raises OSError."""
        path = folder / HEAD
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(b"\n".rjust(_SLOT) * 2)
        self._file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)

    def write(self, number: int, hash_: bytes) -> None:
        """Make the head durable. Raises OSError."""
        os.pwrite(self._file, _line(number, hash_), number % 2 * _SLOT)
        os.fdatasync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def write_head(folder: Path, number: int, hash_: bytes) -> None:
    """Put a head of this commit in the place of whatever is there, whole or not at all. Raises OSError."""
    slots = [b"\n".rjust(_SLOT)] * 2
    if number:
        slots[number % 2] = _line(number, hash_)
    write_bytes(folder / HEAD, b"".join(slots))


def read_head(folder: Path) -> tuple[int, bytes] | None:
    """Number and hash of the last acknowledged commit; None without a file. Raises Damaged if no slot is whole."""
    path = folder / HEAD
    if not os.path.lexists(path):
        return None
    content = read_bytes(path, limit=2 * _SLOT)
    slots = [content[:_SLOT], content[_SLOT:]]
    found = [slot for slot in map(_parsed, slots) if slot is not None]
    if found:
        return max(found)
    if slots == [b"\n".rjust(_SLOT)] * 2:
        return 0, b""
    raise Damaged(
        f"{path} is not a ledger's head", hint="nothing was written; `mcutune doctor` shows what can be saved"
    )


def _line(number: int, hash_: bytes) -> bytes:
    text = f"{number} {hash_.hex()}"
    return f"{text} {sha256(text.encode())[:16]}".ljust(_SLOT - 1).encode() + b"\n"


def _parsed(slot: bytes) -> tuple[int, bytes] | None:
    """The content of a slot that is whole."""
    try:
        number, hash_, _ = slot.decode("ascii").split()
        found = int(number), bytes.fromhex(hash_)
    except ValueError:
        return None
    return found if _line(*found) == slot else None
