"""What Prometheus and the Ray dashboard see of a search: gauges and counters through ray.util.metrics.

Ray exports them as `ray_mcutune_*` at every node's metrics endpoint; cluster/grafana.json draws them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class FoldSnapshot:
    """One fold's study. `trials`: count by state. `best`: objective of the best trial, higher is better, None if none.

    `scores`: metric of the best trial by combination label. `probabilities`: DPFT's latest q by combination label.
    """

    trials: Mapping[str, int]
    best: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    probabilities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A search at one moment. `epochs`: lane epochs trained in all; `lanes_busy`: lanes that packs hold."""

    folds: Mapping[str, FoldSnapshot]
    epochs: int = 0
    lanes_busy: int = 0
    packs: int = 0


class Instrument(Protocol):
    """A gauge (`set`) or a counter (`inc`) of ray.util.metrics."""

    def set(self, value: float, tags: dict[str, str]) -> None: ...

    def inc(self, value: float, tags: dict[str, str]) -> None: ...


GAUGES = {
    "mcutune_trials": ("Trials by state", ("run", "fold", "state")),
    "mcutune_best_objective": ("Objective of the best trial so far, higher is better", ("run", "fold")),
    "mcutune_score": ("Validation metric of the best trial by combination", ("run", "fold", "combination")),
    "mcutune_dpft_probability": ("DPFT probability by combination", ("run", "fold", "combination")),
    "mcutune_lanes_busy": ("Lanes that packs hold", ("run",)),
    "mcutune_packs": ("Packs at work", ("run",)),
    "mcutune_epochs_per_second": ("Lane epochs trained per second, over the last half minute", ("run",)),
}
COUNTERS = {"mcutune_epochs_total": ("Lane epochs trained by this search since it started", ("run",))}


def ray_instrument(name: str) -> Any:
    """The instrument of ray.util.metrics; made inside the process that reports."""
    from ray.util.metrics import Counter, Gauge

    if name in GAUGES:
        description, tags = GAUGES[name]
        return Gauge(name, description, tag_keys=tags)
    description, tags = COUNTERS[name]
    return Counter(name, description, tag_keys=tags)


class Reporter:
    """Turns snapshots into metric values. `make`: an instrument by name; `clock`: monotonic seconds."""

    def __init__(self, run: str, make: Any = ray_instrument, clock: Any = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._make = make
        self._instruments: dict[str, Instrument] = {}
        self._history: list[tuple[float, int]] = []

    def report(self, snapshot: Snapshot) -> None:
        """Publish a snapshot. Instruments are made at the first one, in the process that reports."""
        if not self._instruments:
            self._instruments = {name: self._make(name) for name in (*GAUGES, *COUNTERS)}
        self._epochs(snapshot.epochs)
        self._set("mcutune_lanes_busy", snapshot.lanes_busy)
        self._set("mcutune_packs", snapshot.packs)
        for fold, study in snapshot.folds.items():
            for state, count in study.trials.items():
                self._set("mcutune_trials", count, fold=fold, state=state)
            if study.best is not None:
                self._set("mcutune_best_objective", study.best, fold=fold)
            for label, value in study.scores.items():
                self._set("mcutune_score", value, fold=fold, combination=label)
            for label, value in study.probabilities.items():
                self._set("mcutune_dpft_probability", value, fold=fold, combination=label)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._instruments[name].set(float(value), {"run": self._run, **tags})

    def _epochs(self, epochs: int) -> None:
        now = self._clock()
        # A continued search starts at what its ledger holds: those epochs were not trained by this process.
        added = epochs - self._history[-1][1] if self._history else 0
        if added > 0:
            self._instruments["mcutune_epochs_total"].inc(added, {"run": self._run})
        self._history = [(t, n) for t, n in self._history if now - t <= 30.0]
        self._history.append((now, epochs))
        first, count = self._history[0]
        rate = (epochs - count) / (now - first) if now > first else 0.0
        self._set("mcutune_epochs_per_second", max(0.0, rate))
