"""Every way to the disk, killed at every system call, with a full disk at every write, and a failing sync.

strace attaches to a forked child and injects the fault at the n-th call of a kind. What a reader finds afterwards is
what was there before or what is there after, never between; and the same work done again ends as if nothing had been.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.engine import forked
from bench.chaos.traced import CALLS, SYNCS, WRITES, available, traced
from bench.chaos.ways import Way, ways
from bench.rows import Row

KILL, FULL, FULL_ON, BROKEN = "killed", "no room once", "no room from then on", "sync fails"
_SYNC = re.compile(r"^\d+ +(?:fsync|fdatasync)\(\d+<([^>]*)>")
FAULTS = {
    KILL: (CALLS, "signal=SIGKILL:when={n}"),
    FULL: (WRITES, "error=ENOSPC:when={n}"),
    FULL_ON: (WRITES, "error=ENOSPC:when={n}+"),
    BROKEN: (SYNCS, "error=EIO:when={n}"),
}


@dataclass
class Outcome:
    """How many faults of each kind were injected, and what went wrong, in words."""

    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Laid:
    """A way laid out: the folder it starts from, what readers find before and after, and the calls on it."""

    way: Way
    template: Path
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    points: list[tuple[str, int]]


def campaign(folder: Path, seed: int, most: int | None = None, chosen: tuple[Way, ...] = ()) -> Outcome:
    """Every point of every way; `most`: of each way and fault, drawn by seed, and twice as many kills."""
    rng, found, begun = random.Random(seed), Outcome(), time.monotonic()
    for number, way in enumerate(chosen or ways()):
        place = folder / f"way{number}"
        laid = _lay(way, place)
        for fault, (calls, form) in FAULTS.items():
            points = [point for point in laid.points if point[0] in calls]
            if most is not None:
                points = _some(points, 2 * most if fault == KILL else most, rng)
            for call, n in points:
                _inject(laid, place, fault, f"{call}:{form.format(n=n)}", found)
        shutil.rmtree(place, ignore_errors=True)
    found.seconds = time.monotonic() - begun
    return found


def _some(points: list[tuple[str, int]], most: int, rng: random.Random) -> list[tuple[str, int]]:
    """One of each kind of call in turn, the rare kinds first: a rename is one of many, and there the state changes.

    Calls that open come last: what is found after a kill there is found after a kill at the next call, too.
    """
    kinds: dict[str, list[tuple[str, int]]] = {}
    for point in rng.sample(points, len(points)):
        kinds.setdefault(point[0], []).append(point)
    opening = kinds.pop("openat", [])
    rare = sorted(kinds.values(), key=lambda kind: (len(kind), kind[0][0]))
    turns = [point for turn in itertools.zip_longest(*rare) for point in turn if point is not None] + opening
    return turns[:most]


def _lay(way: Way, place: Path) -> _Laid:
    template, undisturbed = place / "template", place / "undisturbed"
    place.mkdir(parents=True)
    way.prepare(template)
    shutil.copytree(template, undisturbed)
    way.work(undisturbed)  # also imports what it needs, so that children need not
    before, after = way.state(_copied(template, place / "seen")), way.state(undisturbed)
    shutil.rmtree(undisturbed)
    target = _copied(template, place / "run")
    ended = traced(lambda: way.work(target), place / "log")
    if ended.code != 0:
        raise RuntimeError(f"{way.name} fails without any fault: {ended.said}")
    return _Laid(way, template, before, after, ended.points())


def _copied(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def _inject(laid: _Laid, place: Path, fault: str, inject: str, found: Outcome) -> None:
    """One fault, and what it leaves."""
    way = laid.way
    target = _copied(laid.template, place / "run")
    ended = traced(lambda: way.work(target), place / "log", inject, ["-y"])
    found.faults[fault] += 1
    where = f"{way.name}, {fault}, {inject.split(':')[0]} {inject.rsplit('=', 1)[1]}"
    if ended.code == 4:
        found.problems.append(f"{where}: {ended.said}")
    if fault == BROKEN and ended.code == 0 and not way.derived and not _synced_again(ended.log):
        found.problems.append(f"{where}: it was said to be done")
    found.problems += [f"{where}: {problem}" for problem in _between(laid, target, done=ended.code == 0)]
    code = forked(lambda: way.work(target))
    if _code(code) != 0:
        found.problems.append(f"{where}: done again, it fails")
    elif again := list(_between(laid, target, done=True)):
        found.problems += [f"{where}, done again: {problem}" for problem in again]


def _code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _synced_again(log: tuple[str, ...]) -> bool:
    """Whether what could not be synced was synced later on."""
    names = [(found[1], "INJECTED" in line) for line in log if (found := _SYNC.match(line)) is not None]
    failed = [number for number, (_, injected) in enumerate(names) if injected]
    return all(any(name == names[n][0] and not bad for name, bad in names[n + 1 :]) for n in failed)


def _between(laid: _Laid, target: Path, done: bool) -> Iterator[str]:
    """The parts of the state that are neither as before nor as after; `done`: it was said that the work is done."""
    way = laid.way
    try:
        state = way.state(target)
    except Exception as error:
        yield f"cannot be read: {type(error).__name__}: {error}"[:300]
        return
    for number, (now, before, after) in enumerate(zip(state, laid.before, laid.after, strict=True)):
        valid = [after] if done and not way.derived else [before, after]
        if now not in valid and not (way.derived and now is None) and not _more(now, after):
            yield f"part {number} is {str(now)[:60]}, neither {str(before)[:60]} nor {str(after)[:60]}"


def _more(now: Any, after: Any) -> bool:
    """A count of what is only ever added to may be higher where the work was done again."""
    return type(now) is int and type(after) is int and now > after


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures; `count`: points of each way and fault, all unless it is given."""
    if not available():
        return [Row("chaos", "crashes: not run", None, "", note="strace is not here")]
    found = campaign(folder, seed, 3 if quick and count is None else count)
    total = sum(found.faults.values())
    kinds = ", ".join(f"{count:,} {fault}" for fault, count in found.faults.items())
    return [
        Row("chaos", f"crashes: states between, of {total:,} faults", len(found.problems), "", goal="0",
            met=not found.problems,
            note="; ".join([f"{len(ways())} ways to the disk: {kinds}; {found.seconds:.0f} s", *found.problems[:5]]))
    ]  # fmt: skip
