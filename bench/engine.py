"""The engine without a search around it, for the benches: packs of a fixed list of lanes, alone or one a process."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, Literal

import torch

from mcutune.data.views import FoldData
from mcutune.domain.pack import PackStart, Timing
from mcutune.domain.task import default_metric
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneId, LaneOrder, LaneResult, Orders, Verdict
from mcutune.training.config import configuration
from mcutune.training.encoder_stage import encoder_outputs, train_encoder
from mcutune.training.lane import Lane
from mcutune.training.pack import Pack
from mcutune.training.result import lane_files

SEARCH_SEED = 0
RANKS = (2, 4, 8, 16)
_PATIENCE = 900  # seconds that another process may take


def orders(
    fold: FoldData, count: int, epochs: int, overrides: dict[str, Any], ranks: Sequence[int] = RANKS
) -> list[LaneOrder]:
    """Lanes of as many trials with one seed, of various ranks and learning rates."""
    rates = (3e-4, 1e-3, 3e-3)
    varied = [{"rank": ranks[t % len(ranks)], "learning_rate": rates[t % len(rates)]} for t in range(count)]
    return [LaneOrder(LaneId(fold.fold, t, 0), 1, {**overrides, **one}, epochs) for t, one in enumerate(varied)]


def start_of(fold: FoldData, overrides: dict[str, Any], ranks: Sequence[int] = RANKS) -> PackStart:
    """What a coordinator would tell a pack: every combination is measured, ranks go up to the largest."""
    every = tuple(range(2 ** len(fold.modalities) - 1))
    metric, shape = default_metric(fold.task).name, configuration(overrides).shape()
    return PackStart(fold.fold, shape, max(ranks), SEARCH_SEED, metric, every, "mean", fold.modalities)


Files = dict[int, list[dict[str, bytes]]]
"""The encoders of each seed, an entry a modality as `train_encoder` gives them."""


def pack_of(fold: FoldData, overrides: dict[str, Any], device: str = "cpu", ranks: Sequence[int] = RANKS) -> Pack:
    """A pack over a fold; it trains its own encoders, once."""
    return pack_and_encoders(fold, overrides, device, ranks)[0]


def pack_and_encoders(
    fold: FoldData, overrides: dict[str, Any], device: str = "cpu", ranks: Sequence[int] = RANKS
) -> tuple[Pack, Files]:
    """The same, and the encoders that it has trained."""
    files: Files = {}

    def encoded(seed: int) -> list[torch.Tensor]:
        if seed not in files:
            given = pack.resident, pack.shape, SEARCH_SEED, seed
            files[seed] = [train_encoder(*given, m) for m in range(len(fold.modalities))]
        return encoder_outputs(files[seed], torch.device(device))

    pack = Pack(fold, start_of(fold, overrides, ranks), encoded, torch.device(device))
    return pack, files


def checkpoint(fold: FoldData, overrides: dict[str, Any], folder: Path) -> None:
    """Write the checkpoint of a lane that has made a few steps: its speed is that of any other."""
    pack, encoders = pack_and_encoders(fold, {**overrides, "encoder_epochs": 1})
    (lane,) = lanes_of(pack, 1, {**overrides, "encoder_epochs": 1})
    pack.epoch([lane], most_steps=3)
    for name, content in lane_files(lane, pack, encoders.get(lane.seed, [])).items():
        (folder / name).write_bytes(content)


def lanes_of(pack: Pack, count: int, overrides: dict[str, Any], ranks: Sequence[int] = RANKS) -> list[Lane]:
    """New lanes of a pack."""
    return [pack.lane(order) for order in orders(pack.resident.data, count, 1000, overrides, ranks)]


@dataclass(frozen=True)
class Spell:
    """What a process did between two moments of one clock (seconds)."""

    begun: float
    ended: float
    count: int


Job = Callable[..., Callable[[], int]]
"""Prepares, and returns what is to be timed; that returns how much it did (trial-epochs)."""


def _work(job: Job, arguments: tuple[Any, ...], ready: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    timed = job(*arguments)
    ready.wait(_PATIENCE)
    begun = time.monotonic()
    count = timed()
    answers.put(Spell(begun, time.monotonic(), count))


def rate_of_two(job: Job, arguments: Sequence[tuple[Any, ...]]) -> float:
    """What processes of one thread each do a second, together: one for each tuple of arguments.

    Raises RuntimeError where one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(len(arguments)), context.Queue()
    processes = [context.Process(target=_work, args=(job, one, ready, answers), daemon=True) for one in arguments]
    for process in processes:
        process.start()
    spells: list[Spell] = []
    while len(spells) < len(processes):
        try:
            spells.append(answers.get(timeout=1))
        except queue.Empty:
            if any(process.exitcode not in (None, 0) for process in processes):
                raise RuntimeError("a process of the bench failed; what it said stands above") from None
    for process in processes:
        process.join()
    return sum(s.count for s in spells) / (max(s.ended for s in spells) - min(s.begun for s in spells))


class FixedWork:
    """A coordinator with neither ledger nor rungs: every lane of a list is trained to its end, by whichever pack asks.

    The part of domain.pack.Client that packs must share; the rest is in OwnData.
    """

    def __init__(self, start: PackStart, lanes: list[LaneOrder]) -> None:
        self._start, self._lanes = start, lanes
        self._budget = {order.lane: order.epochs for order in lanes}
        self._encoders: dict[str, dict[str, bytes] | None] = {}  # None: a pack is training it
        self._training: dict[str, int] = {}  # lanes by pack
        self._lock = threading.Lock()
        self.results = 0

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        with self._lock:
            return self._start if self._lanes else None

    def advance(
        self, pack: str, epochs: list[LaneEpoch], failures: list[LaneFailure], results: list[LaneResult], places: int
    ) -> Orders:
        if failures:
            raise RuntimeError(f"lane {failures[0].lane.trial} failed: {failures[0].message}")
        ended = {e.lane for e in epochs if e.epoch >= self._budget[e.lane]}
        with self._lock:
            going = self._training.get(pack, 0) - len(ended)
            given, self._lanes = self._lanes[: places - going], self._lanes[places - going :]
            self._training[pack] = going + len(given)
            return Orders({lane: Verdict.FINISH for lane in ended}, tuple(given), done=not self._lanes)

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        with self._lock:
            if key not in self._encoders:
                self._encoders[key] = None
                return "train"
            return self._encoders[key] or "wait"

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        with self._lock:
            self._encoders[key] = files


class OwnData:
    """A coordinator, with the fold that this process has made itself. Implements domain.pack.Client."""

    def __init__(self, coordinator: Any, fold: FoldData) -> None:
        self._fold = fold
        self.join, self.advance = coordinator.join, coordinator.advance
        self.encoder, self.put_encoder = coordinator.encoder, coordinator.put_encoder

    def fold_data(self, fold: str) -> FoldData:
        return self._fold

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        return ()

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        """Sizes are given here, not measured."""

    def sized(self, pack: str, capacity: int, how: str) -> None:
        """As above."""

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        raise RuntimeError(problem)


class Office(BaseManager):
    """The process in which a FixedWork is shared by packs."""


Office.register("FixedWork", FixedWork, exposed=("join", "advance", "encoder", "put_encoder"))
