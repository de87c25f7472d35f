"""Engines with a mistake built in: a campaign that does not see them would prove nothing.

Each mutant replaces a function of the engine by one that does what is written beside it; a campaign runs on it, and has
to find something. The campaigns are the others of this package, with few faults, and a trace of what is on the disk
when something is acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.chaos import crashes, engine, flips
from bench.chaos.traced import traced
from bench.chaos.ways import ways
from bench.rows import Row
from mcutune import files
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneResult
from mcutune.model import checkpoint
from mcutune.search import artefacts, ledger, packs, proposals, rungs, study
from mcutune.search.commits import Commit
from mcutune.search.coordinator import Coordinator
from mcutune.search.head import _SLOT, Head, _line
from mcutune.search.ledger import Ledger
from mcutune.search.study import Study
from tests.search import simulate
from tests.search.simulate import Play, plan_of

PATIENCE = 60.0  # seconds after which a campaign that has found something stops
_SYNCED = re.compile(r"^\d+ +(fsync|fdatasync)\(\d+<([^>]*)>")
_WRITTEN = re.compile(r"^\d+ +(?:write|pwrite64|writev|ftruncate)\(\d+<([^>]*)>")
_DERIVED = ("summary.json", ".summary.json.part", ".lock", "-shm")


@dataclass(frozen=True)
class Mutant:
    """`mistake`: makes it. `campaign`: gives what it found, in words."""

    name: str
    mistake: Callable[[], contextlib.AbstractContextManager[Any]]
    campaign: Callable[[Path, int], list[str]]


# Campaigns


def killing(folder: Path, seed: int) -> list[str]:
    """SIGKILLs at random instants."""
    return engine.campaign(folder, seed, kills=40, least=2, patience=0.0).problems


def calling(folder: Path, seed: int) -> list[str]:
    """SIGKILLs at system calls of a small search."""
    return engine.at_every_call(folder, seed, calls=("pwrite64",), skip=0.5).problems


def crashing(*names: str) -> Callable[[Path, int], list[str]]:
    """Faults at system calls, on some ways."""

    def system_calls(folder: Path, seed: int) -> list[str]:
        chosen = tuple(way for way in ways() if way.name in names)
        return crashes.campaign(folder, seed, most=12, chosen=chosen).problems

    return system_calls


def flipping(kind: str) -> Callable[[Path, int], list[str]]:
    """Flipped bits in files of a kind."""

    def flipped_bits(folder: Path, seed: int) -> list[str]:
        return flips.campaign(folder, seed, flips=200, only=kind).problems

    return flipped_bits


def cutting(folder: Path, seed: int) -> list[str]:
    """Power cuts: what was acknowledged must have been synced. Read from a trace of system calls."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan, acks = plan_of(folder / "run", trials=6, seeds=1), folder / "acks"
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work() -> None:
        def acknowledged(result: LaneResult) -> None:
            os.write(file, f"{result.lane.trial}\n".encode())

        Play(plan, packs=1, capacity=1, acknowledged=acknowledged).run()

    ended = traced(work, folder / "log", options=["-y"])
    os.close(file)
    if ended.code != 0:
        return [f"the search failed: {ended.said}"]
    return unsynced(ended.log, folder / "run", acks)


def unsynced(log: tuple[str, ...], run: Path, acks: Path) -> list[str]:
    """The files of the run that were written and not synced when something was acknowledged."""
    dirty: set[str] = set()
    found: list[str] = []
    seen = 0
    for line in log:
        if (synced := _SYNCED.match(line)) is not None:
            dirty.discard(synced[2])
        elif (written := _WRITTEN.match(line)) is not None and written[1] == str(acks):
            seen += 1
            found += [f"unsynced when acknowledged: {Path(path).name}" for path in sorted(dirty)]
        elif written is not None and written[1].startswith(f"{run}/") and not written[1].endswith(_DERIVED):
            dirty.add(written[1])
    return found if seen else ["nothing was acknowledged"]


# Mistakes


@contextlib.contextmanager
def none() -> Iterator[None]:
    """No mistake: the campaigns must find nothing."""
    yield


def _acknowledges_first() -> contextlib.AbstractContextManager[Any]:
    """What a word leads to is written when the next one comes, or at the end."""
    insert, head, close = ledger.insert, Head.write, Ledger.close
    late: dict[str, Any] = {}

    def flush() -> None:
        for name, real in (("insert", insert), ("head", head)):
            if name in late:
                real(*late.pop(name))

    def later(name: str) -> Callable[..., None]:
        def write(*given: Any) -> None:
            if name == "insert":
                flush()
            late[name] = given

        return write

    def closing(self: Ledger, **options: Any) -> None:
        flush()
        close(self, **options)

    changes = ((ledger, "insert", later("insert")), (Head, "write", later("head")), (Ledger, "close", closing))
    return _patched(*changes)


def _facts_first() -> contextlib.AbstractContextManager[Any]:
    real, late = artefacts.write_folders, list[Any]()

    def write_folders(folders: Any) -> None:
        for one in late:
            real(one)
        late[:] = [folders]

    return _patched((artefacts, "write_folders", write_folders))


def _new_seed() -> contextlib.AbstractContextManager[Any]:
    real = simulate.epoch_of

    def epoch_of(order: Any, epoch: int, combinations: int = 3) -> LaneEpoch | LaneFailure:
        lane = replace(order.lane, seed=order.lane.seed + 1_000 * (order.attempt - 1))
        said = real(replace(order, lane=lane), epoch, combinations)
        return replace(said, lane=order.lane)

    return _patched((simulate, "epoch_of", epoch_of))


def _whatever_finished() -> contextlib.AbstractContextManager[Any]:
    def visible(results: Any, below: int) -> list[Any]:
        return sorted(results, key=lambda result: result.number)

    def propose(self: Study) -> bool:
        return self.wants_more and len(self.record.running) < self.space.lag and self._start()

    return _patched((proposals, "visible", visible), (proposals, "STARTUP", 3), (Study, "_propose", propose))


def _no_fencing() -> contextlib.AbstractContextManager[Any]:
    known: dict[str, Any] = {}
    real = packs.Packs.hear

    def hear(self: packs.Packs, pack: str) -> Any:
        known[pack] = real(self, pack) or known.get(pack)
        return known[pack]

    def take(self: Coordinator, state: Any, word: Any) -> bool:
        of = self._studies[word.lane.fold]
        lane = of.lane(word.lane)
        if lane is None:
            return False
        word = replace(word, attempt=lane.attempt)
        if isinstance(word, LaneEpoch):
            of.epoch(word, word.epoch - 1)
        elif isinstance(word, LaneFailure):
            of.failure(word)
        else:
            self._results.append((state.name, word))
        return True

    return _patched((packs.Packs, "hear", hear), (Coordinator, "_take", take))


def _prunes_by_arrival() -> contextlib.AbstractContextManager[Any]:
    def decide(number: int, eta: int, at_rung: Any) -> rungs.Decision:
        """Against whoever is there, instead of the lower-numbered ones."""
        there = [score for k in range(number + 8) if k != number and isinstance(score := _known(at_rung, k), float)]
        own = at_rung(number)
        better = sum(score > own for score in there)
        return rungs.Decision.GO_ON if better < max(1, (len(there) + 1) // eta) else rungs.Decision.PRUNE

    def _known(at_rung: Any, number: int) -> Any:
        with contextlib.suppress(IndexError, KeyError):
            return at_rung(number)
        return None

    return _patched((study, "decide", decide))


def _in_place() -> contextlib.AbstractContextManager[Any]:
    @contextlib.contextmanager
    def replacing(path: Path) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path

    return _patched((files, "replacing", replacing))


def _patched(*changes: tuple[Any, str, Any]) -> contextlib.AbstractContextManager[Any]:
    stack = contextlib.ExitStack()
    for target, name, value in changes:
        stack.enter_context(patch.object(target, name, value))
    return stack


def _nothing(*_: Any) -> None:
    return None


def mutants() -> tuple[Mutant, ...]:
    """All, the sound engine first for every campaign."""

    return (
        Mutant("acknowledges before it commits", _acknowledges_first, calling),
        Mutant("facts before the checkpoints they name", _facts_first, killing),
        Mutant("a new seed for a new attempt", _new_seed, killing),
        Mutant("proposals from whatever has finished", _whatever_finished, killing),
        Mutant("rungs decided by who came first", _prunes_by_arrival, killing),
        Mutant("late words are taken: no fencing", _no_fencing, killing),
        Mutant("the ledger is not synced", lambda: _patched((ledger, "SYNCHRONOUS", "OFF")), cutting),
        Mutant("the ledger's head is not synced", lambda: _patched((os, "fdatasync", _nothing)), cutting),
        Mutant("checkpoints are not synced", lambda: _patched((artefacts, "_sync", _nothing)), cutting),
        Mutant("files are written in place", _in_place, crashing("best.json")),
        Mutant("a failed sync is not noticed", _swallowed, crashing("ledger, a commit")),
        Mutant("the chain of hashes is not checked", _unchained, flipping("ledger.db")),
        Mutant("hashes inside files are not checked", _unhashed, flipping("checkpoint.json")),
    )  # fmt: skip


def _swallowed() -> contextlib.AbstractContextManager[Any]:
    """An error of the head's sync passes for done."""

    def write(self: Head, number: int, hash_: bytes) -> None:
        os.pwrite(self._file, _line(number, hash_), number % 2 * _SLOT)
        with contextlib.suppress(OSError):
            os.fdatasync(self._file)

    return _patched((Head, "write", write))


def _unhashed() -> contextlib.AbstractContextManager[Any]:
    return _patched((checkpoint, "whole", lambda value, path: value))


def _unchained() -> contextlib.AbstractContextManager[Any]:
    def chain(connection: Any, path: Path, first: int = 1, last: int = 2**63 - 1) -> Iterator[tuple[Commit, bytes]]:
        for facts in connection.execute(ledger._CHAIN, (first, last)):
            yield Commit._make(facts[:-1]), facts[-1]

    return _patched((ledger, "chain", chain))


@dataclass(frozen=True)
class Caught:
    """`found`: by the campaign, in words. `failed`: it could not run at all, which is no way to catch a mistake."""

    name: str
    campaign: str
    found: tuple[str, ...]
    seconds: float
    failed: bool = False


def campaign(folder: Path, seed: int, chosen: tuple[Mutant, ...]) -> list[Caught]:
    """Each mutant, and what was found of it; nothing found means that it escaped."""
    found = []
    for number, mutant in enumerate(chosen):
        begun = time.monotonic()
        place = folder / f"mutant{number}"
        failed = False
        with mutant.mistake():
            try:
                problems = mutant.campaign(place, seed)
            except Exception as error:
                problems, failed = [f"{type(error).__name__}: {error}"], True
        shutil.rmtree(place, ignore_errors=True)
        found.append(Caught(mutant.name, mutant.campaign.__name__, tuple(problems), time.monotonic() - begun, failed))
    return found


def sound(folder: Path, seed: int) -> list[Caught]:
    """The engine as it is, under every campaign: nothing may be found."""
    kinds = {mutant.campaign for mutant in mutants()}
    return campaign(folder, seed, tuple(Mutant("none", none, kind) for kind in kinds))


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures."""
    innocent = [problem for one in sound(folder / "sound", seed) for problem in one.found]
    found = campaign(folder, seed, mutants()[: count or None])
    escaped = [one.name for one in found if not one.found or one.failed]
    caught = "; ".join(f"{one.name}: {one.found[0][:80]}" for one in found if one.found)
    return [
        Row("chaos", f"mutants: escaped, of {len(found)}", len(escaped), "", goal="0", met=not escaped,
            note="; ".join([*escaped, f"caught by what they did: {caught}"])),
        Row("chaos", "mutants: found in the sound engine", len(innocent), "", goal="0", met=not innocent,
            note="; ".join(innocent[:3])),
    ]  # fmt: skip
