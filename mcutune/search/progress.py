"""A search at one moment, as plain values, for live views and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mcutune.domain.trial import State
from mcutune.search.packs import Packs
from mcutune.search.records import EventRow, Records, StudyRecord, TrialRecord, floats
from mcutune.search.run_folder import Plan

_RECENT = 12  # ended trials and events that are shown


@dataclass(frozen=True)
class TrialView:
    """A trial. `epoch` of `epochs`: mean over its lanes. `score`: its objective, so far or final; None without one."""

    fold: str
    number: int
    state: str
    epoch: int
    epochs: int
    score: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class FoldView:
    """A fold. `counts`: trials by state. `scores`, `probabilities`: of the best trial, by combination label."""

    fold: str
    counts: dict[str, int]
    planned: int
    best: TrialView | None
    scores: dict[str, float]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """A search. `paused`: why nothing is acknowledged now, or empty. `share`: of the work done, 0 to 1.

    `lanes`: at work now; `capacity`: of all packs together.
    """

    run: str
    folds: tuple[FoldView, ...]
    trials: tuple[TrialView, ...]
    lanes: int
    packs: int
    nodes: int
    epochs: int
    share: float
    elapsed: float
    events: tuple[EventRow, ...]
    done: bool
    stopped: bool
    paused: str
    capacity: int = 0


def of(plan: Plan, records: Records, packs: Packs, elapsed: float, done: bool, stopped: bool, paused: str) -> Progress:
    """The progress of a run from its records and packs."""
    studies = [records.studies[fold] for fold in plan.folds]
    folds = tuple(_fold(study, plan.space.trials) for study in studies)
    rows = [view for study in studies for view in _shown(study)]
    ended = sum(len(study.trials) - len(study.running) for study in studies)
    begun = sum(v.epoch / max(v.epochs, 1) for v in rows if v.state == State.RUNNING.value)
    budget = plan.space.budget
    share = (ended + begun) / (plan.space.trials * len(studies))
    if budget is not None and not budget.gpu:
        share = max(share, elapsed / budget.seconds)
    return Progress(
        run=plan.name,
        folds=folds,
        trials=tuple(rows),
        lanes=sum(len(pack.held) for pack in packs),
        packs=sum(1 for _ in packs),
        nodes=len({pack.node for pack in packs}),
        epochs=records.epochs,
        share=1.0 if done else min(share, 0.999),
        elapsed=elapsed,
        events=tuple(records.events[-_RECENT:]),
        done=done,
        stopped=stopped,
        paused=paused,
        capacity=sum(pack.capacity for pack in packs),
    )


def _fold(study: StudyRecord, planned: int) -> FoldView:
    best = study.best
    tops = [lane.top for lane in best.lanes if lane.top] if best else []
    return FoldView(
        fold=study.row.fold,
        counts=dict(study.counts),
        planned=planned,
        best=_view(study, best) if best else None,
        scores=by_label(study, [floats(top.scores) for top in tops]),
        probabilities=by_label(study, [floats(top.probabilities) for top in tops]),
    )


def by_label(study: StudyRecord, vectors: list[list[float]]) -> dict[str, float]:
    """The mean of vectors [C], by combination label; empty where their length is not C."""
    if not vectors or any(len(vector) != len(study.combinations) for vector in vectors):
        return {}
    return {label: sum(v[i] for v in vectors) / len(vectors) for i, label in enumerate(study.combinations)}


def _shown(study: StudyRecord) -> Iterable[TrialView]:
    recent = [trial for trial in study.trials[-_RECENT - len(study.running) :] if trial.state is not State.RUNNING]
    return [_view(study, trial) for trial in (*recent, *(study.running[n] for n in sorted(study.running)))]


def _view(study: StudyRecord, trial: TrialRecord) -> TrialView:
    epochs = int(trial.settings.get("epochs", study.default["epochs"]))
    lanes = max(len(trial.lanes), 1)
    if trial.state is State.RUNNING:
        values = [best.value for lane in trial.lanes if (best := lane.best())]
        score = sum(values) / len(values) if values else None
        epoch = trial.epochs // lanes
    else:
        score, epoch = trial.score, epochs if trial.state is State.FINISHED else max(trial.reached, default=0)
    return TrialView(study.row.fold, trial.number, trial.state.value, epoch, epochs, score, trial.settings)
