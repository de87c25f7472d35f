"""The rules of one fold's study: what follows from what was reported. No packs, no time, no files.

Every rule depends on facts only, never on the order in which they came: a trial's rung is scored when all its lanes
are there, decided when the lower trials are; proposal k sees only trials below k − lag. So one pack or two, killed or
not, write the same canonical ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mcutune.domain.combination import Modalities
from mcutune.domain.objective import scalar
from mcutune.domain.trial import Failure, LaneEpoch, LaneFailure, LaneId, State, Verdict
from mcutune.files import canonical_json
from mcutune.search.canonical import trial_digest
from mcutune.search.proposals import Proposals, Result, looks_back, oldest_seen
from mcutune.search.records import (
    EpochRow,
    EventRow,
    LaneRecord,
    LaneRow,
    Row,
    RungRow,
    StudyRecord,
    TrialRecord,
    TrialRow,
    blob,
)
from mcutune.search.reported import why_not_recorded
from mcutune.search.rungs import Absent, Decision, decide, eta_of
from mcutune.search.space import Space
from mcutune.training.config import Configuration

RETRIES = 3  # of a lane after crashes, or after losses of a pack that trained nothing else, without a new epoch
OOM_RETRIES = 1  # the pack has halved itself meanwhile
_NO_SIBLING = "another lane of its trial failed"


@dataclass
class Live:
    """What a running trial needs besides its record. `passed`: rungs decided so far, all GO_ON."""

    configuration: Configuration
    shape: tuple[Any, ...]
    rungs: tuple[int, ...]
    passed: int = 0
    differed: set[int] = field(default_factory=set)  # seeds whose repeated epochs differed

    @property
    def next_rung(self) -> int | None:
        return self.rungs[self.passed] if self.passed < len(self.rungs) else None


class Study:
    """One fold's study at work on its record; facts go through `put`, which adds them to the record."""

    def __init__(self, space: Space, record: StudyRecord, put: Callable[[Row], None]) -> None:
        self.space = space
        self.record = record
        self.fold = record.row.fold
        self.exhausted = False
        self._add = put
        self._proposals = Proposals(space, space.search_seed)
        self._results: list[Result] = []  # those that proposals may still look at
        self._oldest = 0  # the lowest number among them
        self._live: dict[int, Live] = {}
        self._touched = set(record.running)  # trials of which something was said since they were last looked at
        self._waiting: set[int] = set()  # trials that something said of another one may move
        self._known: dict[bytes, int] = {}  # configuration -> the first trial that has it
        self._inside = 0  # distinct configurations that lie in the space
        self._labels = Modalities(record.modalities)
        self.measured = tuple(self._labels.labels.index(label) for label in record.combinations)
        for trial in record.trials:
            if trial.repeats is None:
                self._meet(trial)
            if trial.state is not State.RUNNING:
                self._learn(trial)

    @property
    def wants_more(self) -> bool:
        """Whether trials are still to be proposed."""
        return not self.exhausted and len(self.record.trials) < self.space.trials

    @property
    def unguided(self) -> bool:
        """Whether the next trial is still to be proposed, and its proposal looks at no results."""
        return self.wants_more and not looks_back(self.space, len(self.record.trials))

    def live(self, number: int) -> Live:
        """The running trial's configuration and rungs."""
        found = self._live.get(number)
        if found is None:
            found = self._enliven(number, self.space.configuration(self.record.trials[number].settings))
        return found

    def _enliven(self, number: int, configuration: Configuration) -> Live:
        rungs = self.space.rungs.below(configuration.epochs) if self.space.rungs else ()
        found = self._live[number] = Live(configuration, configuration.shape(), rungs)
        return found

    def lane(self, lane: LaneId) -> LaneRecord | None:
        """The record of a lane whose trial is running, or None."""
        trial = self.record.running.get(lane.trial)
        return trial.lanes[lane.seed] if trial and 0 <= lane.seed < len(trial.lanes) else None

    def ready(self) -> Iterator[tuple[LaneId, LaneRecord, Live]]:
        """The lanes that are not at their end, lowest trial first, then seeds."""
        for number in sorted(self.record.running):
            trial = self.record.running[number]
            for lane in trial.lanes:
                if lane.state is State.RUNNING:
                    yield LaneId(self.fold, number, lane.seed), lane, self.live(number)

    # What lanes report

    def epoch(self, said: LaneEpoch, seen: int) -> None:
        """A lane that has reported `seen` epochs in this attempt reports another one."""
        lane, live = self.lane(said.lane), self.live(said.lane.trial)
        assert lane is not None
        due = live.next_rung or live.configuration.epochs
        if said.epoch != seen + 1 or said.epoch > due:
            self.failure(_failed(said, Failure.CRASH, f"reported epoch {said.epoch} after {seen}, due until {due}"))
            return
        problem = why_not_recorded(said, len(self.measured))
        if problem is not None:
            self.failure(_failed(said, *problem))
            return
        value = self.objective(said.scores, live.configuration)
        row = EpochRow(
            *_key(said.lane), said.attempt, int(said.epoch), value, float(said.loss),
            blob(said.scores), blob(said.probabilities), blob(said.divergences),
        )  # fmt: skip
        if said.epoch > len(lane.epochs):
            self._put(row)
        elif row.measured() != lane.epochs[said.epoch - 1].measured() and lane.seed not in live.differed:
            live.differed.add(lane.seed)
            text = f"epoch {said.epoch} of attempt {said.attempt} differs from what was recorded; the first is kept"
            self._put(EventRow("not reproducible", *_key(said.lane), text))

    def objective(self, scores: tuple[float, ...], configuration: Configuration) -> float:
        """What a lane of this configuration is judged by, of C scores; higher is better."""
        objective = configuration.objective(self.space.objective.to_json(), self._labels.labels)
        return scalar(scores, self.measured, self._labels.names, objective, self.record.row.metric)

    def failure(self, said: LaneFailure) -> None:
        """A lane failed: it is tried again where that can help, else its trial ends at the next `settle`."""
        lane = self.lane(said.lane)
        assert lane is not None
        text = f"epoch {said.epoch}: {said.message}"[:500]
        retries = OOM_RETRIES if said.failure is Failure.OOM else RETRIES
        again = not said.failure.final and lane.failures.count(said.failure) < retries
        if again:
            self.reopen(said.lane, said.failure, text)
            return
        end = LaneRow(*_key(said.lane), lane.attempt, State.FAILED.value, failure=said.failure.value, message=text)
        self._put(end)

    def lost(self, lane: LaneId, seen: int, others: int | None, message: str) -> None:
        """The pack of a lane has ended, after `seen` epochs of this attempt, with `others` more lanes in training.

        others: None if the lane only waited there. It is tried again, unless it was to blame `RETRIES` times before.
        """
        record = self.lane(lane)
        assert record is not None
        if record.is_to_blame(seen, others) and record.failures.count(Failure.LOST) >= RETRIES:
            text = f"epoch {seen}: {message}"[:500]
            key, failure = _key(lane), Failure.LOST.value
            self._put(LaneRow(*key, record.attempt, State.FAILED.value, failure=failure, message=text))
            return
        self.reopen(lane, Failure.LOST, message, None if others is None else seen, others)

    def reopen(
        self, lane: LaneId, why: Failure | None, message: str, seen: int | None = None, others: int | None = None
    ) -> None:
        """A new attempt of a lane, from its first epoch; results of the one before are refused from now on.

        seen, others: how far the one before had come, and in what company (LaneRow), if its pack was lost.
        """
        record = self.lane(lane)
        assert record is not None
        failure = why.value if why else None
        attempt = record.attempt + 1
        state = State.RUNNING.value
        self._put(LaneRow(*_key(lane), attempt, state, failure=failure, message=message, seen=seen, others=others))

    def finished(self, lane: LaneId, pack: str, best_epoch: int, weights: str | None, checkpoint: str | None) -> None:
        """A lane's checkpoint is durable."""
        record = self.lane(lane)
        assert record is not None
        best = record.best()
        assert best is not None
        if best.epoch != best_epoch:
            text = f"the lane kept epoch {best_epoch}, the recorded best is {best.epoch}"
            self._put(EventRow("not reproducible", *_key(lane), text))
        value = record.epochs[best_epoch - 1].value
        row = LaneRow(*_key(lane), record.attempt, State.FINISHED.value, pack, best_epoch, value, weights, checkpoint)
        self._put(row)

    def verdict(self, lane: LaneId, seen: int) -> Verdict:
        """What a lane that has reported `seen` epochs in this attempt does next."""
        record = self.lane(lane)
        if record is None or record.state is not State.RUNNING:
            return Verdict.END
        live = self.live(lane.trial)
        if seen == live.next_rung:
            return Verdict.PARK
        return Verdict.FINISH if seen >= live.configuration.epochs else Verdict.CONTINUE

    # What follows

    def settle(self, proposing: bool = True) -> None:
        """Draw every conclusion the facts allow: rungs, ends of trials, new trials.

        Only trials are looked at to which something new was said, and those that wait for others.
        """
        moved = True
        while moved:
            numbers, self._touched = sorted(self._touched | self._waiting), set()
            moved = False
            for number in numbers:
                if (trial := self.record.running.get(number)) is not None:
                    moved |= self._settle_trial(trial)
                self._note_waiting(number)
            moved |= proposing and self._propose()

    def _note_waiting(self, number: int) -> None:
        """Whether a trial that was just looked at waits for another one: at a rung, or for what it repeats."""
        trial = self.record.running.get(number)
        if trial is not None and (trial.repeats is not None or self.live(number).next_rung in trial.reached):
            self._waiting.add(number)
        else:
            self._waiting.discard(number)

    def begin(self, lanes: int) -> None:
        """Start trials beyond the lag for about so many lanes, as long as their proposals look at no results.

        When such a trial starts changes nothing: what it is follows from its number alone.
        """
        while lanes > 0 and self.unguided and self._start():
            lanes -= len(self.record.trials[-1].lanes)

    def _settle_trial(self, trial: TrialRecord) -> bool:
        """Whether the trial ended (others may wait for that) or reached a rung."""
        if trial.repeats is not None:
            return self._repeat(trial, self.record.trials[trial.repeats])
        if any(lane.state is State.FAILED for lane in trial.lanes):
            self._end_failed(trial)
            return True
        live, moved = self.live(trial.number), False
        while (rung := live.next_rung) is not None and all(len(lane.epochs) >= rung for lane in trial.lanes):
            if rung not in trial.reached:
                values = [best.value for lane in trial.lanes if (best := lane.best(rung))]
                self._put(RungRow(self.fold, trial.number, rung, math.fsum(values) / len(values)))
                moved = True
            decision = self._decide(trial.number, rung)
            if decision is Decision.WAIT:
                return moved
            if decision is Decision.PRUNE:
                self._end_pruned(trial)
                return True
            live.passed += 1
        if all(lane.state is State.FINISHED for lane in trial.lanes):
            self._end_finished(trial)
            return True
        return moved

    def _decide(self, number: int, rung: int) -> Decision:
        assert self.space.rungs is not None
        eta = eta_of(number, self.space.rungs, self.space.lag, rung, self.record.trials)
        if eta == 1:
            return Decision.GO_ON
        return Decision.WAIT if eta is None else decide(number, eta, partial(self._at_rung, rung))

    def _at_rung(self, rung: int, number: int) -> float | Absent:
        trial = self.record.trials[number]
        if trial.repeats is not None:
            return Absent.NEVER
        if rung in trial.reached:
            return trial.reached[rung]
        if trial.state is State.RUNNING and rung in self.live(number).rungs:
            return Absent.NOT_YET
        return Absent.NEVER

    def _end_finished(self, trial: TrialRecord) -> None:
        scores = [lane.end.score for lane in trial.lanes if lane.end and lane.end.score is not None]
        self._end(trial, State.FINISHED, score=math.fsum(scores) / len(scores))

    def _end_pruned(self, trial: TrialRecord) -> None:
        for lane in trial.lanes:
            best = lane.best()
            assert best is not None
            key = (self.fold, trial.number, lane.seed)
            self._put(LaneRow(*key, lane.attempt, State.PRUNED.value, best_epoch=best.epoch, score=best.value))
        self._end(trial, State.PRUNED)

    def _end_failed(self, trial: TrialRecord) -> None:
        failed = next(lane for lane in trial.lanes if lane.state is State.FAILED)
        for lane in trial.lanes:
            if lane.state is State.RUNNING:
                key = (self.fold, trial.number, lane.seed)
                self._put(LaneRow(*key, lane.attempt, State.FAILED.value, message=_NO_SIBLING))
        assert failed.end is not None
        self._end(trial, State.FAILED, failure=failed.end.failure, message=f"seed {failed.seed}, {failed.end.message}")

    def _repeat(self, trial: TrialRecord, first: TrialRecord) -> bool:
        """A configuration that was tried before is not trained again: the trial shares the first one's fate."""
        if first.state is State.RUNNING:
            return False
        failure = first.failure.value if first.failure else None
        self._end(trial, first.state, score=first.score, failure=failure, message=f"repeats trial {first.number}")
        return True

    def _end(self, trial: TrialRecord, state: State, **facts: Any) -> None:
        """The trial's last row; its digest covers what the trial is by then."""
        digest = trial_digest(trial, state, facts.get("score"))
        rungs = canonical_json(sorted(trial.reached.items())).decode() if trial.reached else None
        begun = (self.fold, trial.number, state.value, trial.text, trial.repeats)
        self._put(TrialRow(*begun, digest=digest, rungs=rungs, **facts))
        self._live.pop(trial.number, None)
        self._learn(trial)

    def _put(self, row: Row) -> None:
        self._add(row)
        if isinstance(row, TrialRow | LaneRow | EpochRow):
            self._touched.add(row.number if isinstance(row, TrialRow) else row.trial)

    def _propose(self) -> bool:
        """Start the next trial if the lag allows it."""
        ready = self.record.settled >= len(self.record.trials) - self.space.lag
        return self.wants_more and ready and self._start()

    def _start(self) -> bool:
        """Start the next trial; False where there is no further configuration."""
        number = len(self.record.trials)
        values: dict[str, Any] | None = {}
        if number > 0:
            spent = self.space.size is not None and not self.space.explicit and self._inside >= self.space.size
            values = None if spent else self._proposals.propose(number, self._remembered(number))
        if values is None:
            self.exhausted = True
            return False
        configuration = self.space.configuration(values)
        settings = configuration.model_dump(mode="json", include=set(values))
        first = self._known.get(self._fingerprint(settings))
        text = canonical_json(settings).decode()
        self._put(TrialRow(self.fold, number, State.RUNNING.value, settings=text, repeats=first))
        if first is None:
            for seed in range(self.space.seeds):
                self._put(LaneRow(self.fold, number, seed, 1, State.RUNNING.value))
            self._meet(self.record.trials[number])
            self._enliven(number, configuration)
        return True

    def _remembered(self, number: int) -> list[Result]:
        """The results that proposals from `number` on may look at; the others are forgotten."""
        oldest = oldest_seen(self.space, number)
        if oldest > self._oldest:
            self._results = [result for result in self._results if result.number >= oldest]
            self._oldest = oldest
        return self._results

    def _meet(self, trial: TrialRecord) -> None:
        """Remember a configuration that was not tried before."""
        self._known[self._fingerprint(trial.settings)] = trial.number
        if self.space.size is not None:
            values = self._values(trial)
            self._inside += all(p.contains(values[p.name]) for p in self.space.parameters)

    def _learn(self, trial: TrialRecord) -> None:
        """Remember how a trial ended, for proposals; what only repeats another is not counted twice."""
        if trial.repeats is None and trial.number >= oldest_seen(self.space, len(self.record.trials)):
            score, rungs = trial.score if trial.state is State.FINISHED else None, tuple(sorted(trial.reached.items()))
            self._results.append(Result(trial.number, self._values(trial), trial.state, score, rungs))

    def _fingerprint(self, settings: dict[str, Any]) -> bytes:
        """Equal for equal configurations: what differs from trial 0."""
        return canonical_json({name: value for name, value in settings.items() if value != self.record.default[name]})

    def _values(self, trial: TrialRecord) -> dict[str, Any]:
        """The trial's values of the space's parameters."""
        configuration = self.record.configuration(trial)
        found = {p.name: configuration[p.name] for p in self.space.parameters}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _key(lane: LaneId) -> tuple[str, int, int]:
    return lane.fold, lane.trial, lane.seed


def _failed(said: LaneEpoch, failure: Failure, message: str) -> LaneFailure:
    return LaneFailure(said.lane, said.attempt, said.epoch, failure, message)
