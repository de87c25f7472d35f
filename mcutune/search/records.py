"""The facts of a search, and what they add up to.

A fact is a row that is only ever inserted; a trial or lane has one row for every state it enters. `Records` is the sum
of all rows in their order: the coordinator builds it as it goes, a reader by replaying the ledger. Same rows, same sum.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from mcutune.domain.trial import Failure, State


class StudyRow(NamedTuple):
    """A fold's study. JSON: `modalities` and `combinations` (labels, C of them), `objective`, `settings` (trial 0)."""

    fold: str
    task: str
    table_hash: str
    split_hash: str
    modalities: str
    combinations: str
    metric: str
    objective: str
    settings: str
    space_hash: str


class TrialRow(NamedTuple):
    """A trial enters a state. `settings`: JSON, over trial 0's. `repeats`: the trial that had them first.

    Its last row says all that is kept of it for every reader. `rungs`: JSON, the (epoch, score) pairs it reached.
    """

    fold: str
    number: int
    state: str
    settings: str | None = None
    repeats: int | None = None
    score: float | None = None
    failure: str | None = None
    message: str | None = None
    digest: str | None = None
    rungs: str | None = None


class LaneRow(NamedTuple):
    """A lane enters a state. Running: a new attempt opens; `failure` says what ended the one before.

    Of an attempt that ended with its pack: `seen`, how many epochs it had reported, and `others`, how many more lanes
    were in training there; neither is set for a lane that only waited in it.
    Finished: `weights` and `checkpoint` are the SHA-256 of model.safetensors and checkpoint.json.
    """

    fold: str
    trial: int
    seed: int
    attempt: int
    state: str
    pack: str | None = None
    best_epoch: int | None = None
    score: float | None = None
    weights: str | None = None
    checkpoint: str | None = None
    failure: str | None = None
    message: str | None = None
    seen: int | None = None
    others: int | None = None


class RungRow(NamedTuple):
    """All lanes of a trial have reached a rung: the mean of their best objectives so far."""

    fold: str
    trial: int
    epoch: int
    score: float


class EpochRow(NamedTuple):
    """What a lane measured. `value`: the objective. Blobs: C little-endian float64 each (`floats` reads them)."""

    fold: str
    trial: int
    seed: int
    attempt: int
    epoch: int
    value: float
    loss: float
    scores: bytes
    probabilities: bytes
    divergences: bytes

    def measured(self) -> tuple[Any, ...]:
        """What must be equal when the epoch is trained again."""
        return (self.epoch, self.value, self.loss, self.scores, self.probabilities, self.divergences)


class EventRow(NamedTuple):
    """Something worth showing that changes no result."""

    kind: str
    fold: str | None
    trial: int | None
    seed: int | None
    message: str


Row = StudyRow | TrialRow | LaneRow | RungRow | EpochRow | EventRow
TABLES: dict[str, type[Any]] = {
    "studies": StudyRow, "trials": TrialRow, "lanes": LaneRow, "rungs": RungRow, "epochs": EpochRow, "events": EventRow,
}  # fmt: skip


SUSPECT = 2  # losses in company, without a new epoch in between, after which a lane is trained alone


def blob(values: tuple[float, ...]) -> bytes:
    return array("d", values).tobytes()


def floats(content: bytes) -> list[float]:
    return array("d", content).tolist()


@dataclass(slots=True)
class LaneRecord:
    """A lane so far. When its trial ends, `epochs` are dropped unless the records keep them.

    `failures`: of the attempts since its last new epoch that nothing but the lane can be blamed for. Packs are lost for
    many reasons: a lane that gets on, or that had been further before, had no part in it, and while it was in company
    nobody knows. Those losses are counted in `shared`.
    `top`: the best epoch, held for trial 0 and the best trial of the study.
    """

    seed: int
    attempt: int = 0
    state: State = State.RUNNING
    failures: list[Failure] = field(default_factory=list)
    shared: int = 0
    epochs: list[EpochRow] = field(default_factory=list)
    end: LaneRow | None = None
    top: EpochRow | None = None

    @property
    def suspect(self) -> bool:
        """Whether it is to be trained with no other lane, so that its pack's next end tells who is to blame."""
        return self.shared >= SUSPECT

    def is_to_blame(self, seen: int | None, others: int | None) -> bool:
        """Whether nobody else can have ended its pack: the only one in training, at its furthest epoch."""
        return others == 0 and seen == len(self.epochs)

    def failed(self, failure: Failure, seen: int | None, others: int | None) -> None:
        """An attempt failed; what cannot be the lane's fault is not counted."""
        if failure is not Failure.LOST or self.is_to_blame(seen, others):
            self.failures.append(failure)
        elif seen == len(self.epochs) and others:
            self.shared += 1

    def best(self, until: int | None = None) -> EpochRow | None:
        """The epoch with the highest objective, ties to the earlier, among the first `until`."""
        return max(self.epochs[:until], key=lambda row: (row.value, -row.epoch), default=None)


@dataclass(slots=True)
class TrialRecord:
    """A trial so far. `reached`: rung (epoch) to score.

    `lanes`: of a running trial; of one that has ended only if it is trial 0 or the best, or the records keep all.
    """

    number: int
    text: str = "{}"
    repeats: int | None = None
    state: State = State.RUNNING
    score: float | None = None
    failure: Failure | None = None
    message: str = ""
    digest: str | None = None
    reached: dict[int, float] = field(default_factory=dict)
    lanes: list[LaneRecord] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets over trial 0's settings."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def epochs(self) -> int:
        return sum(len(lane.epochs) for lane in self.lanes)


@dataclass
class StudyRecord:
    """A fold's study so far. `trials[k]` is trial k. `settled`: all trials below it are terminal.

    `best`: the finished trial with the highest score, ties to the lower number. `counts`: trials by state.
    """

    row: StudyRow
    trials: list[TrialRecord] = field(default_factory=list)
    running: dict[int, TrialRecord] = field(default_factory=dict)
    best: TrialRecord | None = None
    counts: dict[str, int] = field(default_factory=lambda: {state.value: 0 for state in State})

    @property
    def settled(self) -> int:
        return next(iter(self.running), len(self.trials))  # trials begin in the order of their numbers

    @cached_property
    def default(self) -> dict[str, Any]:
        """Every setting of trial 0."""
        found: dict[str, Any] = json.loads(self.row.settings)
        return found

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        return tuple(json.loads(self.row.modalities))

    @cached_property
    def combinations(self) -> tuple[str, ...]:
        """The labels of the measured combinations, C of them."""
        return tuple(json.loads(self.row.combinations))

    def configuration(self, trial: TrialRecord) -> dict[str, Any]:
        """Every setting of a trial."""
        return {**self.default, **trial.settings}

    @property
    def shown(self) -> list[TrialRecord]:
        """The finished trials whose lanes are held: trial 0 and the best."""
        best = [self.best] if self.best is not None and self.best.number != 0 else []
        return [*(trial for trial in self.trials[:1] if trial.state is State.FINISHED), *best]

    def ended(self, trial: TrialRecord, *, keep: bool) -> None:
        """Take note of a trial that has reached its last state. `keep`: its lanes and epochs, whoever it is."""
        if trial.state is _FINISHED and trial.repeats is None and self._leads(trial):
            if self.best is not None and self.best.number != 0:
                _drop(self.best, keep)
            self.best = trial
        if trial.number == 0 or trial is self.best:
            for lane in trial.lanes:
                lane.top = lane.best()
                lane.epochs = lane.epochs if keep else []
        elif trial.lanes:
            _drop(trial, keep)

    def _leads(self, trial: TrialRecord) -> bool:
        assert trial.score is not None
        before = self.best
        return before is None or before.score is None or (trial.score, -trial.number) > (before.score, -before.number)


def _drop(trial: TrialRecord, keep: bool) -> None:
    for lane in trial.lanes:
        lane.top = None
    if not keep:
        trial.lanes = []


_STATES = {state.value: state for state in State}
_RUNNING, _FINISHED = State.RUNNING, State.FINISHED  # looked up once: an enum's members are slow to find
_UNSEEN = TrialRecord(-1)  # stands for a trial whose last row is still to come


class Records:
    """The sum of all rows so far. `keep`: hold the lanes and epochs of ended trials too. `epochs`: of all lanes.

    `partial`: the steps of trials that have ended may be missing, until `complete` is called.
    """

    def __init__(self, *, keep: bool = False, partial: bool = False) -> None:
        self.studies: dict[str, StudyRecord] = {}
        self.events: list[EventRow] = []
        self.epochs = 0
        self.keep = keep
        self._partial = partial

    def apply(self, row: Row) -> None:
        """Add a fact. Raises ValueError for one that contradicts those before: a terminal state never changes."""
        if isinstance(row, TrialRow):
            self._trial(row)
        elif isinstance(row, StudyRow):
            self.studies[row.fold] = StudyRecord(row)
        elif isinstance(row, EventRow):
            self.events.append(row)
        elif (trial := self.studies[row.fold].running.get(row.trial)) is not None:
            self._step(trial, row)
        elif not self._partial:
            raise ValueError(f"trial {row.trial} of fold {row.fold} is not running")

    def complete(self, epochs: int) -> None:
        """All rows of a ledger were added, with `epochs` of all lanes. Raises ValueError where a trial is missing."""
        if any(trial is _UNSEEN for study in self.studies.values() for trial in study.trials):
            raise ValueError("a trial has no last row")
        self.epochs, self._partial = epochs, False

    def _step(self, trial: TrialRecord, row: LaneRow | RungRow | EpochRow) -> None:
        if isinstance(row, EpochRow):
            lane = trial.lanes[row.seed]
            if row.epoch != len(lane.epochs) + 1:
                raise ValueError(f"epoch {row.epoch} follows {len(lane.epochs)} of lane {row[:3]}")
            lane.epochs.append(row)
            lane.failures.clear()
            lane.shared = 0
            self.epochs += 1
        elif isinstance(row, LaneRow):
            self._lane(trial, row)
        else:
            trial.reached[row.epoch] = row.score

    def _trial(self, row: TrialRow) -> None:
        study, number, state = self.studies[row.fold], row.number, _STATES[row.state]
        trials = study.trials
        trial = study.running.pop(number, None) if state is not _RUNNING else None
        if trial is not None:
            study.counts["running"] -= 1
        elif number < len(trials) and trials[number] is not _UNSEEN:
            raise ValueError(f"trial {number} of fold {row.fold} cannot be {row.state} now")
        elif not self._partial and (number != len(trials) or state is not _RUNNING):
            raise ValueError(f"trial {number} of fold {row.fold} cannot be {row.state}: {len(trials)} have begun")
        else:
            trials.extend([_UNSEEN] * (number + 1 - len(trials)))
            trial = trials[number] = TrialRecord(number, row.settings or "{}", row.repeats)
        study.counts[row.state] += 1
        if state is _RUNNING:
            study.running[number] = trial
            return
        trial.state, trial.score, trial.digest = state, row.score, row.digest
        trial.failure, trial.message = Failure(row.failure) if row.failure else None, row.message or ""
        if row.rungs:
            trial.reached = dict(json.loads(row.rungs))
        study.ended(trial, keep=self.keep)

    def _lane(self, trial: TrialRecord, row: LaneRow) -> None:
        state = State(row.state)
        if row.seed == len(trial.lanes):
            trial.lanes.append(LaneRecord(row.seed))
        lane = trial.lanes[row.seed]
        if lane.state is not _RUNNING:
            raise ValueError(f"lane {row[:3]} has ended")
        lane.attempt, lane.state = row.attempt, state
        if row.failure is not None:
            lane.failed(Failure(row.failure), row.seen, row.others)
        if state is not _RUNNING:
            lane.end = row
