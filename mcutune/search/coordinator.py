"""The coordinator: the one that owns a run's ledger and tells packs what to train.

Every word of a pack goes the same way: take it in, draw the conclusions (study.py), commit, and only then answer. What
decides results is in study.py and depends on facts alone; here is what does not: who trains which lane, who is late,
whose disk is full. One call at a time; nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

from mcutune.data.views import FoldData
from mcutune.domain.pack import PackStart, Timing
from mcutune.domain.trial import (
    Failure,
    LaneEpoch,
    LaneFailure,
    LaneId,
    LaneResult,
    Orders,
    State,
    Verdict,
)
from mcutune.errors import NoResources
from mcutune.files import DISK_FULL, home, unusable
from mcutune.search import progress
from mcutune.search.artefacts import EncoderCache, write_checkpoints
from mcutune.search.dispatch import Dispatch, Shape
from mcutune.search.keeping import Keeper
from mcutune.search.ledger import NoSpace, open_ledger
from mcutune.search.lock import RunLock
from mcutune.search.meter import Meter
from mcutune.search.pack_sizes import Timings, told
from mcutune.search.packs import Packs, PackState
from mcutune.search.records import EventRow, LaneRow, Row, StudyRow, TrialRow
from mcutune.search.run_folder import STOP, Plan, agree, make_folder, study_row
from mcutune.search.snapshot import Snapshots
from mcutune.search.study import Study
from mcutune.search.summary import FINISHED, summary_of
from mcutune.search.winners import write_best

IDLE = 0.2  # seconds after which a pack with nothing to do asks again
FULL = 5.0  # seconds after which packs ask again while the disk is full


class Coordinator:
    """Implements domain.pack.Client. Opening it takes the run's lock and continues what the ledger holds."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.monotonic, lease: float = 900.0) -> None:
        """`lease`: seconds of silence after which a pack counts as lost; never less than 10 of its usual pauses.

        Raises Busy, Damaged, BadInput (another space), Problems (other data or versions).
        """
        self.plan = plan
        self.stopped = False
        self.paused = ""
        self._error: Exception | None = None
        self._results: list[tuple[str, LaneResult]] = []  # whose files are not on the disk yet
        self._sizes: dict[str, EventRow] = {}  # what was told of each pack's size
        self._keeper = Keeper(plan.folder, plan.keep)
        make_folder(plan)
        self._lock = RunLock(plan.folder, driver=plan.driver)
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            rows = [study_row(plan, plan.fold_data(fold)) for fold in plan.folds]
            accepted = agree(plan, rows)
            self._ledger, self._records = open_ledger(plan.folder)
            undo.callback(self._ledger.close, untouched=True)
            self._snapshots = Snapshots(plan.folder, clock)
            self._meter = Meter(clock, self._ledger.last.elapsed, self._ledger.last.gpu)
            self._packs = Packs(clock, lease)
            self._encoders = EncoderCache(home() / "encoders", self._packs.alive)
            self._timings = Timings(home() / "timings")
            self._studies = {row.fold: self._study(row) for row in rows}
            self._dispatch = Dispatch(self._studies, self._packs, plan.space.max_rank, plan.packs)
            self._resume(accepted)
            undo.pop_all()

    def _study(self, row: StudyRow) -> Study:
        """A fold's study, begun if the ledger has none."""
        if row.fold not in self._records.studies:
            self._put(row)
        return Study(self.plan.space.of(row.fold), self._records.studies[row.fold], self._put)

    def _resume(self, accepted: list[str]) -> None:
        """What was running belongs to nobody now: every open lane gets a new attempt, which fences late results."""
        self._keeper.open(self._records)
        for change in accepted:
            self._put(EventRow("accepted change", None, None, None, change))
        for study in self._studies.values():
            for lane, _, _ in list(study.ready()):
                study.reopen(lane, None, "resumed")
        self._conclude()

    # What packs call

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        """Work for a pack: the fold and shape with lanes to train that the fewest packs serve."""
        with self._guarded():
            self._give_back(self._packs.leave(pack), "its pack joined anew")
            self._expire(pack)
            self._conclude()
            choice = None if self.stopped or self.done else self._dispatch.choose()
            if choice is None:
                return None
            study, shape = choice
            self._packs.enter(PackState(pack, capacity, node, device, study.fold, shape))
            return self._work(study, shape)

    def forerun(self, forerunner: str) -> tuple[PackStart, tuple[int, ...]] | None:
        """What a pack would be given now, and its seeds, for one who trains encoders ahead of the packs and is none."""
        with self._guarded():
            choice = None if self.stopped or self.done else self._dispatch.choose()
            if choice is None:
                return None
            self._encoders.led_by(forerunner)
            seeds = dict.fromkeys(lane.seed for lane, _, live in choice[0].ready() if live.shape == choice[1])
            return self._work(*choice), tuple(seeds)

    def forerun_ended(self) -> None:
        """What the forerunner was to train is anybody's."""
        self._encoders.led_by("")

    def _work(self, study: Study, shape: Shape) -> PackStart:
        space = self.plan.space
        return PackStart(
            fold=study.fold,
            shape=shape,
            max_rank=space.max_rank,
            search_seed=space.search_seed,
            metric=study.record.row.metric,
            combinations=study.measured,
            objective=space.objective.to_json(),
            modalities=study.record.modalities,
        )

    def advance(
        self, pack: str, epochs: list[LaneEpoch], failures: list[LaneFailure], results: list[LaneResult], places: int
    ) -> Orders:
        """Take in what a pack reports, commit it, and answer for every lane it holds."""
        with self._guarded():
            said: list[LaneEpoch | LaneFailure | LaneResult] = [*epochs, *failures, *results]
            state = self._packs.hear(pack)
            if state is None:
                return Orders({word.lane: Verdict.END for word in said}, done=True)
            if state.device != "cpu":
                self._meter.gpu += state.pause
            refused = [word.lane for word in said if not self._take(state, word)]
            self._expire(pack)
            if not self._conclude(state, places):
                return Orders({lane: Verdict.PARK for lane in state.held}, wait=FULL)
            return self._orders(state, places, refused)

    def fold_data(self, fold: str) -> FoldData:
        """Training and validation rows of a fold."""
        return self.plan.fold_data(fold)

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        """A cached encoder, a lease to train it, or word to wait."""
        with self._guarded():
            self._packs.hear(pack)
            self._expire()
            return self._encoders.get(key, pack)

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        """Store a trained encoder; without room for it the search pauses."""
        with self._guarded():
            try:
                self._encoders.put(key, files)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise unusable(f"the encoder cache cannot be written: {error}", error) from error
                self._pause(f"no room for an encoder: {error}")

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        """What is known of packs of various sizes under these facts."""
        return self._timings.get(facts)

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        """Store them; where there is no room for them, they are measured again."""
        with self._guarded(), suppress(OSError):
            self._timings.put(facts, timings)

    def sized(self, pack: str, capacity: int, how: str) -> None:
        """A pack has so many places for lanes from now on."""
        with self._guarded():
            event = told(pack, capacity, how)
            if self._packs.resize(pack, capacity) and self._sizes.get(pack) != event and not self.done:
                self._sizes[pack] = event
                self._put(event)

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        """Not even one lane fits a pack. True: it is to leave; False: other shapes may fit, this one's lanes fail.

        Raises NoResources where all lanes are of one shape and no other pack is at work.
        """
        with self._guarded():
            if self.plan.space.shapes_differ:
                return False
            self._give_back(self._packs.leave(pack), problem)
            if not any(self._packs):
                raise NoResources(problem, hint=remedy)
            return True

    def lost(self, pack: str, reason: str) -> None:
        """A pack is known to be gone: its lanes are handed on."""
        with self._guarded():
            self._give_back(self._packs.leave(pack), reason, lost=True)
            self._conclude()

    def stop(self) -> None:
        """Hand out nothing more and end the packs at their next word; the same command continues."""
        self.stopped = True

    def progress(self) -> progress.Progress:
        """The state of the search for a live view; a request to stop is seen here too, before any pack has joined."""
        self._heed_stop()
        self._snapshot()
        return progress.of(self.plan, self._records, self._packs, self._meter.now, self.done, self.stopped, self.paused)

    def close(self) -> None:
        """Release the ledger and the lock. A killed coordinator need not have done this."""
        if self.stopped:
            with suppress(OSError):
                (self.plan.folder / STOP).unlink(missing_ok=True)  # obeyed: the next one goes on
        self._ledger.close(untouched=self._error is not None)
        self._lock.release()

    @property
    def done(self) -> bool:
        """Whether no trial runs, none is to come, and all is durable."""
        more = self._proposing
        return not self._ledger.pending and not any(
            study.record.running or (more and study.wants_more) for study in self._studies.values()
        )

    # Taking in

    def _take(self, state: PackState, word: LaneEpoch | LaneFailure | LaneResult) -> bool:
        """Whether the word was of the lane's present attempt; then it has been taken in."""
        study, held = self._studies.get(word.lane.fold), state.held.get(word.lane)
        lane = study.lane(word.lane) if study else None
        current = lane is not None and lane.state is State.RUNNING and lane.attempt == word.attempt
        if study is None or held is None or held.attempt != word.attempt or not current:
            self._refuse(state, word)
            return False
        if isinstance(word, LaneEpoch):
            if word.epoch > held.seen:  # else said twice
                study.epoch(word, held.seen)
                held.seen = word.epoch
        elif isinstance(word, LaneFailure):
            study.failure(word)
        elif held.seen < study.live(word.lane.trial).configuration.epochs:
            text = f"sent a result after {held.seen} epochs"
            study.failure(LaneFailure(word.lane, word.attempt, held.seen, Failure.CRASH, text))
        else:
            self._results.append((state.name, word))
        if not isinstance(word, LaneEpoch):
            self._packs.release(state, word.lane)
        return True

    def _refuse(self, state: PackState, word: Any) -> None:
        """Note a late, double or unknown word once a lane and attempt."""
        key = (word.lane, word.attempt)
        if key not in state.refused and word.lane.fold in self._studies:
            state.refused.add(key)
            text = f"{type(word).__name__} of attempt {word.attempt} from pack {state.name}"
            self._put(EventRow("refused", word.lane.fold, word.lane.trial, word.lane.seed, text))

    def _store(self) -> None:
        """Checkpoints first, then the facts that they are there. Those of one word go to the disk together."""
        waiting, self._results = [one for one in self._results if self._wanted(one[1])], []
        try:
            hashes = write_checkpoints(self.plan.folder, {result.lane: result.files for _, result in waiting})
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise unusable(f"a checkpoint cannot be written: {error}", error, "check the disk") from error
            self._results = waiting
            needed = sum(len(content) for _, one in waiting for content in one.files.values())
            self._pause(f"no room for {len(waiting)} checkpoints of {needed:,} bytes: {error.strerror}")
            return
        for pack, result in waiting:
            self._studies[result.lane.fold].finished(result.lane, pack, int(result.best_epoch), *hashes[result.lane])

    def _wanted(self, result: LaneResult) -> bool:  # while the disk was full, another lane may have failed the trial
        lane = self._studies[result.lane.fold].lane(result.lane)
        return lane is not None and lane.state is State.RUNNING and lane.attempt == result.attempt

    def _give_back(self, state: PackState | None, reason: str, *, lost: bool = False) -> None:
        """The lanes of a pack that is gone are anybody's again, as a new attempt. `lost`: one of them may be why."""
        if state is None:
            return
        study, training = self._studies[state.fold], self._dispatch.training(state)
        for lane, held in list(state.held.items()):
            record = study.lane(lane)
            self._packs.release(state, lane)
            if record is None or record.state is not State.RUNNING or record.attempt != held.attempt:
                continue
            if lost:
                study.lost(lane, held.seen, len(training) - 1 if lane in training else None, reason)
            else:
                study.reopen(lane, None, reason)

    def _expire(self, idle: str = "") -> None:
        """Take the lanes of silent packs back. `idle`: a pack that trains no encoder now."""
        self._encoders.release(idle)
        for state in self._packs.silent(self._encoders.is_training):
            self._give_back(state, f"pack {state.name} was silent", lost=True)

    # Concluding and committing

    @property
    def _proposing(self) -> bool:
        """Whether the budget allows new trials."""
        budget = self.plan.space.budget
        return budget is None or (self._meter.gpu if budget.gpu else self._meter.now) < budget.seconds

    def _put(self, row: Row) -> None:
        self._records.apply(row)
        self._ledger.put(row)
        if isinstance(row, TrialRow):
            self._keeper.ended(row)
        elif isinstance(row, LaneRow) and row.state == State.RUNNING.value:
            self._packs.offer(LaneId(row.fold, row.trial, row.seed))

    def _conclude(self, asking: PackState | None = None, places: int = 0) -> bool:
        """Draw all conclusions and commit; False while the disk is full. Nothing is acknowledged before it is True.

        asking: the pack that is to be answered, which can train `places` lanes at once.
        """
        self._heed_stop()
        self.paused = ""
        self._store()
        for study in self._studies.values():
            study.settle(self._proposing and not self.stopped)
        if asking is not None and self._proposing and not self.stopped and self._studies[asking.fold].unguided:
            # A budget of time ends proposing; what is begun far ahead of the packs would be trained long after.
            ahead = self.plan.space.budget is None
            self._studies[asking.fold].begin(self._dispatch.room(asking, places, ahead=ahead))
        try:
            self._ledger.commit(self._meter.now, self._meter.gpu)
        except NoSpace as error:
            self._pause(str(error))
        if self.paused:
            return False
        self._keeper.drop()
        if self.done:
            self._finish()
        self._snapshot()
        return True

    def _snapshot(self) -> None:
        """Now and then, leave a summary of what is durable for those who ask."""
        if not self._ledger.pending:
            last = self._ledger.last.number, self._ledger.hash
            self._snapshots.keep(*last, lambda: summary_of(self.plan.folder, self._records, held=True).to_json())

    def _heed_stop(self) -> None:
        self.stopped = self.stopped or (self.plan.folder / STOP).exists()

    def _pause(self, reason: str) -> None:
        self.paused = reason

    def _finish(self) -> None:
        """best.json: who won in every fold, and where the checkpoints lie; an event says that nothing is to come."""
        write_best(self.plan, self._records)
        if not self._records.events or self._records.events[-1].kind != FINISHED:
            self._put(EventRow(FINISHED, None, None, None, "all trials have ended and none is to come"))
            self._ledger.commit(self._meter.now, self._meter.gpu)

    # Answering

    def _orders(self, state: PackState, places: int, refused: list[LaneId]) -> Orders:
        """The answer to a pack: verdicts for what it holds, new lanes, or that its work is elsewhere."""
        verdicts = {lane: Verdict.END for lane in refused} | self._dispatch.verdicts(state, self.stopped)
        if self.stopped or self.done:
            return Orders(verdicts, done=True)
        start = tuple(self._dispatch.hand_out(state, places, verdicts))
        if start or any(verdict in (Verdict.CONTINUE, Verdict.FINISH) for verdict in verdicts.values()):
            return Orders(verdicts, start)
        if not self._dispatch.needed_elsewhere(state):
            return Orders(verdicts, wait=IDLE)
        self._give_back(self._packs.leave(state.name), "given back for another shape")
        self._conclude()
        return Orders(dict.fromkeys(verdicts, Verdict.END), done=True)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """After damage nothing more is written: every later call gives the same error."""
        if self._error is not None:
            raise self._error
        try:
            yield
        except Exception as error:
            self._error = error
            raise
