"""The coordinator as Ray sees it: what the actor's process adds around search.coordinator. Imports no Ray itself."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcutune.cluster.metrics import FoldSnapshot, Snapshot
from mcutune.domain.pack import PackStart, Timing
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneResult, Orders, Verdict
from mcutune.errors import UserError
from mcutune.search.progress import Progress

_START = (
    30.0  # seconds after which a worker group that has not come to life is believed to wait for the cluster to grow
)
_BRIEF = 60.0  # seconds; a worker group that lived longer had work to do, and its end is no sign of a broken loop


@dataclass(frozen=True)
class Surroundings:
    """What the actor's process takes over from the process that searches, on the same node."""

    home: Path
    folder: Path
    pid: int

    @classmethod
    def of_this_process(cls, home: Path) -> Surroundings:
        return cls(home=home, folder=Path.cwd(), pid=os.getpid())


@dataclass(frozen=True)
class Answer:
    """The coordinator's state for the process that searches: its progress, or the error that ended it.

    `losses`: why worker groups ended, by pack, in order.
    """

    progress: Any
    error: Exception | None = None
    losses: tuple[str, ...] = ()


@dataclass
class _Group:
    """The worker group that a pack has now. `placement`: what it holds of the cluster, once that is known."""

    pack: str
    since: float
    placement: Any = None


def snapshot_of(progress: Progress) -> Snapshot:
    """What Prometheus sees of a search's progress."""
    folds = {
        view.fold: FoldSnapshot(view.counts, view.best.score if view.best else None, view.scores, view.probabilities)
        for view in progress.folds
    }
    return Snapshot(folds, epochs=progress.epochs, lanes_busy=progress.lanes, packs=progress.packs)


class CoordinatorActor:
    """Owns the coordinator, and so the ledger: the only writer under the home.

    An error of the coordinator (a damaged ledger, a mistake of ours) ends the search, not a pack: packs are told to
    end, and the process that searches finds the error in `look()`. One call at a time; none waits for anything.
    """

    def __init__(
        self,
        run: str,
        make: Callable[[], Any],
        surroundings: Surroundings,
        put: Callable[[Any], Any],
        report: Callable[[Snapshot], None] | None = None,
        snapshot: Callable[[Any], Snapshot] = snapshot_of,
        brief_lives: int = 8,
        at_once: int = 1,
    ) -> None:
        os.environ["MCUTUNE_HOME"] = str(surroundings.home)
        os.chdir(surroundings.folder)
        die_with(surroundings.pid)
        self._run = run
        self._put = put
        self._report = report
        self._snapshot = snapshot
        self._brief_lives = brief_lives
        self._at_once = at_once
        self._starting: dict[int, float] = {}
        self._folds: dict[str, Any] = {}
        self._groups: dict[int, _Group] = {}
        self._brief: Counter[int] = Counter()
        self._begun: Counter[int] = Counter()
        self._losses: list[str] = []
        self._error: Exception | None = None
        self._coordinator: Any = None
        with self._fatal():
            self._coordinator = make()

    # What packs say (domain.pack.Client).

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        with self._fatal():
            return self._alive().join(pack, capacity, node, device)
        return None

    def advance(
        self,
        pack: str,
        epochs: list[LaneEpoch],
        failures: list[LaneFailure],
        results: list[LaneResult],
        places: int,
    ) -> Orders:
        with self._fatal():
            return self._alive().advance(pack, epochs, failures, results, places)
        lanes = {item.lane for item in (*epochs, *failures, *results)}
        return Orders({lane: Verdict.END for lane in lanes}, done=True)

    def fold_data(self, fold: str) -> list[Any]:
        """[reference]: the arrays go to the object store once, and from there to each node once."""
        if fold not in self._folds:
            with self._fatal(raised=True):
                self._folds[fold] = self._put(self._alive().fold_data(fold))
        return [self._folds[fold]]

    def encoder(self, key: str, pack: str) -> Any:
        with self._fatal(raised=True):
            return self._alive().encoder(key, pack)

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        with self._fatal():
            self._alive().put_encoder(key, files)

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        with self._fatal():
            return self._alive().timings(facts)
        return ()

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        with self._fatal():
            self._alive().put_timings(facts, timings)

    def sized(self, pack: str, capacity: int, how: str) -> None:
        with self._fatal():
            self._alive().sized(pack, capacity, how)

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        with self._fatal():
            return self._alive().refuse(pack, problem, remedy)
        return True

    # What the forerunner says (search.forerunner), and who watches it.

    def forerun(self, forerunner: str) -> tuple[PackStart, tuple[int, ...]] | None:
        with self._fatal():
            found: tuple[PackStart, tuple[int, ...]] | None = self._alive().forerun(forerunner)
            return found
        return None

    def forerun_ended(self) -> None:
        with self._fatal():
            self._alive().forerun_ended()

    # What those say who open worker groups (cluster.packs).

    def turn(self, index: int) -> bool:
        """Whether pack `index` may start a worker group now; its turn ends when that has come to life.

        Most of a start is CPU time on the node of the search: `at_once` packs that start together are at work as soon
        as all would be otherwise, and the first of them much sooner.
        """
        now = time.monotonic()
        self._starting = {other: since for other, since in self._starting.items() if now - since < _START}
        if index not in self._starting and len(self._starting) >= self._at_once and self._work_left():
            return False
        self._starting.setdefault(index, now)
        return True

    def begin(self, index: int, reason: str) -> tuple[str, Any] | None:
        """Name of the next worker group of pack `index`, and the placement group that its former one left behind.

        A former group has ended by `reason`: its lanes may be handed on at once. None if no more is wanted: no work is
        left, or `brief_lives` groups one after another ended within a minute.
        """
        former = self._groups.pop(index, None)
        if former is not None:
            self._note_loss(index, former, reason)
        if not self._work_left() or self._brief[index] >= self._brief_lives:
            self._starting.pop(index, None)
            return None
        self._begun[index] += 1
        group = _Group(f"{self._run}-pack{index}-{self._begun[index]}", time.monotonic())
        self._groups[index] = group
        return group.pack, former.placement if former is not None else None

    def hold(self, index: int, placement: Any) -> None:
        """The worker group of pack `index` has come to life, in this placement group."""
        self._starting.pop(index, None)
        if index in self._groups:
            self._groups[index].placement = placement
            self._groups[index].since = time.monotonic()

    def _note_loss(self, index: int, group: _Group, reason: str) -> None:
        brief = time.monotonic() - group.since < _BRIEF
        self._brief[index] = self._brief[index] + 1 if brief else 0
        self._losses.append(f"{group.pack}: {reason}")
        with self._fatal():
            self._alive().lost(group.pack, reason)

    def _work_left(self) -> bool:
        with self._fatal():
            progress = self._alive().progress()
            return not (progress.done or progress.stopped)
        return False

    # What the process that searches says.

    def look(self) -> Answer:
        """Progress for the process that searches; the same facts go to Prometheus."""
        progress = None
        with self._fatal():
            progress = self._alive().progress()
            if self._report is not None:
                self._report(self._snapshot(progress))
        return Answer(progress, self._error, tuple(self._losses))

    def stop(self) -> None:
        """Ask packs to leave."""
        with self._fatal():
            self._alive().stop()

    def close(self) -> None:
        """Release the ledger and the run's lock."""
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            coordinator.close()

    def _alive(self) -> Any:
        if self._error is not None:
            raise self._error
        if self._coordinator is None:
            raise UserError("the search has ended")
        return self._coordinator

    @contextlib.contextmanager
    def _fatal(self, *, raised: bool = False) -> Iterator[None]:
        """Keep the coordinator's first error for the process that searches. `raised`: the caller hears it, too."""
        try:
            yield
        except Exception as error:
            if self._error is None:
                # Only our own errors are sure to survive the way to another process.
                foreseen = isinstance(error, UserError)
                self._error = error if foreseen else RuntimeError(f"the coordinator failed: {traceback.format_exc()}")
            if raised:
                raise


def die_with(pid: int) -> None:
    """End this process when another one of this machine ends, however it does.

    Ray ends an actor some seconds after its driver was killed; until then it would hold the run's lock, and the same
    command started again would find the run busy.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return  # another pid namespace: Ray's own way has to do

    def watch() -> None:
        select.select([descriptor], [], [])
        os._exit(1)

    threading.Thread(target=watch, name="mcutune-driver-watch", daemon=True).start()
