"""How often the labels of test rows were opened for a run: a line of JSON each, written before they are read."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcutune.errors import Damaged
from mcutune.files import sealed, sync_folder, whole

FILE = "openings.jsonl"
_KEYS = ("opening", "time", "selection", "tables", "protocols")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def record(
    folder: Path, selection: str, tables: Sequence[str], protocols: Sequence[str], told: int = 0
) -> list[dict[str, Any]]:
    """Append an opening, durably, and return the whole log; only then may labels be read.

    told: openings that a report of them has told already. A last line without its end was never acknowledged, so no
    label was read after it: it is cut off. Raises Damaged where another line is not what was written, or there are
    fewer than were told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = _ended(file.read(), path)
        log = _parse(ended, path)
        if len(log) < told:
            raise Damaged(
                f"{path} has {len(log)} openings, the report beside it tells of {told}",
                hint="the log of test openings is never edited; restore it",
            )
        entry = {
            "opening": len(log) + 1,
            "time": now(),
            "selection": selection,
            "tables": list(tables),
            "protocols": list(protocols),
        }
        file.truncate(len(ended))
        file.seek(len(ended))
        file.write(json.dumps(sealed(entry), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(descriptor)
    sync_folder(folder)
    return [*log, entry]


def read(folder: Path) -> list[dict[str, Any]]:
    """The log; empty where nothing was opened. Raises Damaged."""
    path = folder / FILE
    if not path.exists():
        return []
    return _parse(_ended(path.read_bytes(), path), path)


def _ended(content: bytes, path: Path) -> bytes:
    """All lines with their end. Raises Damaged where a last one has another byte for it, which no torn write leaves."""
    ended = content[: content.rfind(b"\n") + 1]
    try:
        _, length = json.JSONDecoder().raw_decode(rest := content[len(ended) :].decode(errors="replace"))
    except ValueError:  # a torn line
        return ended
    if rest[length:]:
        number = 1 + ended.count(b"\n")
        raise Damaged(f"{path}:{number} is not what was written", hint="the log of test openings is never edited")
    return ended


def _parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    log = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry = whole(entry, path)
            entry.pop("hash", None)
        except (ValueError, AttributeError, Damaged):
            entry = None
        if not isinstance(entry, dict) or tuple(entry) != _KEYS or entry["opening"] != number:
            raise Damaged(f"{path}:{number} is not what was written", hint="the log of test openings is never edited")
        log.append(entry)
    return log
