"""What is known of packs of various sizes, kept under the home, and how the sizes of a run's packs are told."""

from __future__ import annotations

import contextlib
import errno
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcutune.domain.pack import Timing
from mcutune.errors import Damaged, UserError
from mcutune.files import canonical_json, read_sealed, sealed, sha256, write_json
from mcutune.search.records import EventRow

SIZED = "sized"  # the kind of the event that tells a pack's size
_TOLD = re.compile(r"(?P<pack>.+)-\d+: (?P<lanes>\d+) lanes? \((?P<how>.+)\)")


class Timings:
    """HOME/timings/HASH.json: facts, and the timings that hold under them. Advice: what is damaged is measured anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        """The timings, smallest size first; none where there are none."""
        with contextlib.suppress(UserError, KeyError, TypeError):
            content = read_sealed(self._path(facts))
            if content["facts"] == facts:
                return _checked(Timing(**timing) for timing in content["timings"])
        return ()

    def put(self, facts: dict[str, Any], timings: Iterable[Timing]) -> None:
        """Store them, unless as many sizes are known already. Raises OSError, Damaged where the disk fails."""
        found = _checked(timings)
        if len(found) <= len(self.get(facts)):
            return
        try:
            write_json(self._path(facts), sealed({"facts": facts, "timings": [asdict(timing) for timing in found]}))
        except OSError as error:
            if error.errno == errno.EIO:
                raise Damaged(f"timings cannot be written: {error}", hint="check the disk") from error
            raise

    def _path(self, facts: dict[str, Any]) -> Path:
        return self._folder / f"{sha256(canonical_json(facts))}.json"


def _checked(timings: Iterable[Timing]) -> tuple[Timing, ...]:
    """The timings, or none if they cannot be: they come from a file, or from a worker."""
    found = tuple(timings)
    rising = all(one.lanes < other.lanes for one, other in zip(found, found[1:], strict=False))
    possible = all(one.lanes > 0 and one.seconds > 0 and one.memory >= 0 and one.spent >= 0 for one in found)
    return found if rising and possible else ()


def told(pack: str, capacity: int, how: str) -> EventRow:
    """The event of a pack's size."""
    return EventRow(SIZED, None, None, None, f"{pack}: {capacity} {'lane' if capacity == 1 else 'lanes'} ({how})")


def sizes(events: Iterable[EventRow]) -> list[str]:
    """The last size of every pack, as `2 packs of 24 lanes (measured)`."""
    last = {}
    for event in events:
        found = _TOLD.fullmatch(event.message) if event.kind == SIZED else None
        if found is not None:
            last[found["pack"]] = (int(found["lanes"]), found["how"])
    return [
        f"{packs} {'pack' if packs == 1 else 'packs'} of {lanes} {'lane' if lanes == 1 else 'lanes'} ({how})"
        for (lanes, how), packs in sorted(Counter(last.values()).items(), reverse=True)
    ]
