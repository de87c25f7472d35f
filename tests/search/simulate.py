"""A search without training: packs whose lanes compute their epochs from (configuration, seed, epoch) alone.

They speak to the real coordinator and keep the rules of training/loop.py. `Play` drives any number of them in one
process in a random order, loses packs and kills the coordinator on the way.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mcutune.domain.task import Task
from mcutune.domain.trial import Failure, LaneEpoch, LaneFailure, LaneId, LaneOrder, LaneResult, Orders, Verdict
from mcutune.search.canonical import ledger_hash
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.run_folder import Plan
from mcutune.search.space_file import load_space

MODALITIES = ("audio", "text")
SPACE = """\
question: does the order matter?
parameters:
  rank: {role: scientific, values: [1, 2, 4, 8, 16]}
  beta: {role: scientific, low: 1e-6, high: 1, log: true}
  encoder_width: {role: nuisance, values: [64, 128]}
fixed: {epochs: 5}
trials: 14
seeds: 2
lag: 3
sampler: tpe
rungs: {first: 1, eta: 2}
"""


SMALL = """\
parameters:
  rank: {role: scientific, values: [1, 2, 4, 8, 16]}
fixed: {epochs: 2}
trials: 4
seeds: 1
lag: 1
sampler: random
rungs: {first: 1, eta: 2}
"""


def data_of(fold: str) -> Any:
    """What the coordinator needs to know of a fold's data."""
    return SimpleNamespace(
        fold=fold, modalities=MODALITIES, task=Task.CLASSIFICATION, table_hash="table", split_hash=f"split {fold}"
    )


def plan_of(folder: Path, text: str = SPACE, folds: tuple[str, ...] = ("1",), **given: Any) -> Plan:
    """The plan of a run at folder (its parent is made); `given`: keys over the space's, or of the plan."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{folder.name}-space.yaml"
    path.write_text(text)
    of_plan = {key: given.pop(key) for key in ("accept_change", "threads", "driver", "keep", "packs") if key in given}
    return Plan(folder, load_space(str(path), **given), folds, data_of, "fake", **of_plan)


def units(*facts: Any) -> float:
    """A number in [0, 1) that looks random and depends on the facts alone."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:6]) / 2**48


def epoch_of(order: LaneOrder, epoch: int, combinations: int = 3) -> LaneEpoch | LaneFailure:
    """What a lane measures; some configurations turn to NaN in some epoch of some seed."""
    values = (order.configuration["rank"], order.configuration["beta"], order.configuration["encoder_width"])
    if units("nan", values) < 0.15 and epoch == 1 + int(4 * units("when", values, order.lane.seed)):
        return LaneFailure(order.lane, order.attempt, epoch, Failure.NAN, "loss nan")
    facts = (order.lane.fold, values, order.lane.seed)
    quality = 1 - 0.05 * abs(values[0] - 4) + 0.01 * epoch
    scores = tuple(quality / 2 + 0.1 * units("score", facts, epoch, c) for c in range(combinations))
    probabilities = tuple(1 / combinations for _ in range(combinations))
    divergences = tuple(units("js", facts, epoch, c) for c in range(combinations))
    return LaneEpoch(order.lane, order.attempt, epoch, scores, 1 / epoch, probabilities, divergences)


@dataclass
class Lane:
    order: LaneOrder
    epoch: int = 0
    best: tuple[float, int] = (-1.0, 0)

    def train(self) -> LaneEpoch | LaneFailure:
        self.epoch += 1
        said = epoch_of(self.order, self.epoch)
        if isinstance(said, LaneEpoch):
            value = sum(said.scores) / len(said.scores)
            if value > self.best[0] + 1e-15:
                self.best = (value, self.epoch)
        return said

    def result(self) -> LaneResult:
        weights = repr((sorted(self.order.configuration.items()), self.order.lane.seed, self.best[1])).encode()
        files = {"model.safetensors": weights, "checkpoint.json": b"{}"}
        return LaneResult(self.order.lane, self.order.attempt, self.best[1], files)


LEASE = 200.0  # seconds


class Died(Exception):
    """A pack's process has ended while it trained."""


@dataclass
class FakePack:
    """One pack. `step` says one word to the coordinator and trains one epoch; False once there is nothing to do.

    `acknowledged` hears of every result that the coordinator has taken in.
    """

    name: str
    capacity: int
    acknowledged: Callable[[LaneResult], None] = lambda result: None
    joined: bool = False
    running: list[Lane] = field(default_factory=list)
    waiting: list[Lane] = field(default_factory=list)
    parked: dict[LaneId, Lane] = field(default_factory=dict)
    epochs: list[LaneEpoch] = field(default_factory=list)
    failures: list[LaneFailure] = field(default_factory=list)
    results: list[LaneResult] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)  # lanes of each of its epochs
    deadly: Callable[[LaneOrder, int], bool] = lambda order, epoch: False  # whether an epoch ends the process

    def step(self, client: Coordinator) -> bool:
        if not self.joined:
            self.joined = client.join(self.name, self.capacity, "node", "cpu") is not None
            return self.joined
        said = (self.epochs, self.failures, self.results)
        self.epochs, self.failures, self.results = [], [], []
        orders = client.advance(self.name, *said, self.capacity)
        for result in said[2]:
            if orders.verdicts.get(result.lane) is not Verdict.END:  # else it was refused
                self.acknowledged(result)
        self._obey(orders)
        if not self.results:
            self._train()
        if orders.done and not (self.running or self.parked or self.waiting or self.results):
            self.joined = False
        return True

    def _obey(self, orders: Orders) -> None:
        going = []
        held = [*self.running, *self.waiting, *self.parked.values()]
        for lane in sorted(held, key=lambda lane: lane.order.lane):
            verdict = orders.verdicts.get(lane.order.lane, Verdict.CONTINUE)
            if verdict is Verdict.PARK:
                self.parked[lane.order.lane] = lane
                continue
            self.parked.pop(lane.order.lane, None)
            if verdict is Verdict.FINISH:
                self.results.append(lane.result())
            elif verdict is Verdict.CONTINUE:
                going.append(lane)
        self.running, self.waiting = going[: self.capacity], going[self.capacity :]
        self.running += [Lane(order) for order in orders.start]

    def _train(self) -> None:
        if self.running:
            self.trained.append(len(self.running))
        if any(self.deadly(lane.order, lane.epoch + 1) for lane in self.running):
            raise Died
        for lane in list(self.running):
            said = lane.train()
            if isinstance(said, LaneFailure):
                self.failures.append(said)
                self.running.remove(lane)
            else:
                self.epochs.append(said)


@dataclass
class Play:
    """A whole search with packs in a random order; a step is a second. `kill`, `lose`: chances of a step.

    `deadly`: epochs of lanes that take their pack's process with them.
    """

    plan: Plan
    packs: int = 1
    capacity: int = 3
    seed: int = 0
    kill: float = 0.0
    lose: float = 0.0
    kills: int = 0
    now: float = 0.0
    acknowledged: Callable[[LaneResult], None] = lambda result: None
    deadly: Callable[[LaneOrder, int], bool] = lambda order, epoch: False

    def run(self, limit: int = 3_000) -> str:
        """Play until the search is done; the ledger's hash."""
        rng = random.Random(self.seed)
        coordinator = self._open()
        packs = [self._fresh(i) for i in range(self.packs)]
        for step in range(limit):
            self.now += 1.0
            if coordinator.done:
                break
            if rng.random() < self.kill:
                coordinator = self._killed(coordinator)
                packs = [self._fresh(step * 10 + i) for i in range(self.packs)]
            index = rng.randrange(len(packs))
            if rng.random() < self.lose:
                coordinator.lost(packs[index].name, "its node went away")
                packs[index] = self._fresh(step * 10 + index)
            try:
                packs[index].step(coordinator)
            except Died:
                coordinator.lost(packs[index].name, "its process died")
                packs[index] = self._fresh(step * 10 + index)
        else:
            raise AssertionError(f"not done after {limit} steps: {coordinator.progress()}")
        coordinator.close()
        return ledger_hash(read_ledger(self.plan.folder)[0])

    def _open(self) -> Coordinator:
        return Coordinator(self.plan, clock=lambda: self.now, lease=LEASE)

    def _fresh(self, number: int) -> FakePack:
        return FakePack(f"pack-{number}", self.capacity, self.acknowledged, deadly=self.deadly)

    def _killed(self, coordinator: Coordinator) -> Coordinator:
        """What a SIGKILL leaves: the files as they are, nothing closed; the run goes on from their copy."""
        self.kills += 1
        folder = self.plan.folder
        image = folder.with_name(f"{folder.name}-image")
        shutil.copytree(folder, image)
        coordinator.close()
        shutil.rmtree(folder)
        image.rename(folder)
        return self._open()
