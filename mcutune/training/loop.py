"""What a pack does from its first word with the coordinator to its last: join, train, report, refill, end."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from mcutune.domain.pack import Client, PackStart
from mcutune.domain.trial import (
    Failure,
    LaneEpoch,
    LaneFailure,
    LaneId,
    LaneOrder,
    LaneResult,
    Orders,
    Verdict,
)  # fmt: skip
from mcutune.errors import NoResources, UserError
from mcutune.training.config import SHAPE_KEYS, configuration
from mcutune.training.encoder_stage import encoder_key, encoder_outputs, train_encoders
from mcutune.training.lane import Lane
from mcutune.training.pack import Pack
from mcutune.training.resident import Resident
from mcutune.training.result import lane_files

Heartbeat = Callable[[dict[str, Any]], None]
_ENCODER_POLL = 0.5  # seconds between asking whether another pack has trained the encoder


def run_pack(
    client: Client,
    *,
    pack: str,
    capacity: int,
    node: str,
    device: str,
    heartbeat: Heartbeat | None = None,
    group: Any = None,
) -> None:
    """Train lanes for the coordinator behind `client` until it has no more work.

    capacity: lanes at once. group: a torch.distributed group, where one pack runs data-parallel on several workers;
    every worker calls this, and `client` must give each the same answers (training/worker.py).
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    while (start := client.join(pack, capacity, node, device)) is not None:
        _Shift(client, start, pack, capacity, torch.device(device), heartbeat, group).work()
        gc.collect()


@dataclass
class _Inbox:
    """What is to be said to the coordinator next."""

    epochs: list[LaneEpoch] = field(default_factory=list)
    failures: list[LaneFailure] = field(default_factory=list)
    results: list[LaneResult] = field(default_factory=list)


class _Shift:
    """Lanes of one fold and one shape, from join to `done`."""

    def __init__(
        self, client: Client, start: PackStart, pack: str, capacity: int, device: torch.device,
        heartbeat: Heartbeat | None, group: Any,
    ) -> None:  # fmt: skip
        self.client, self.start, self.name, self.capacity, self.heartbeat = client, start, pack, capacity, heartbeat
        self.group = group
        self.encoders: dict[int, dict[str, bytes]] = {}
        self.pack = Pack(client.fold_data(start.fold), start, self._encoded, device, group)
        self.running: list[Lane] = []
        self.parked: dict[LaneId, Lane] = {}
        self.waiting: list[Lane] = []  # told to go on, but their place was given away meanwhile

    def work(self) -> None:
        said = _Inbox()
        while True:
            orders = self._advance(said)
            said = _Inbox()
            finished = self._apply(orders)
            for order in orders.start:
                self._begin(order, said)
            for lane in finished:
                said.results.append(self._result(lane))
            if said.results or said.failures:
                continue
            if orders.done and not self.running and not self.parked and not self.waiting:
                return
            self._epoch(said) if self.running else time.sleep(orders.wait)

    def _advance(self, said: _Inbox) -> Orders:
        orders = self.client.advance(self.name, said.epochs, said.failures, said.results, self.capacity)
        if self.heartbeat is not None:
            self.heartbeat({"lanes": len(self.running), "parked": len(self.parked), "fold": self.start.fold})
        return orders

    def _apply(self, orders: Orders) -> list[Lane]:
        """Sort the lanes by what was ordered for them; returns those that are to send their result."""
        held = [*self.running, *self.waiting, *self.parked.values()]
        held.sort(key=lambda lane: lane.order.lane)  # others wait for the lowest
        finished, going = [], []
        for lane in held:
            verdict = orders.verdicts.get(lane.order.lane, Verdict.CONTINUE)
            parked = lane.order.lane in self.parked
            if verdict is Verdict.PARK:
                self.parked[lane.order.lane] = lane
                continue
            if parked:
                del self.parked[lane.order.lane]
            if verdict is Verdict.FINISH:
                finished.append(lane)
            elif verdict is Verdict.CONTINUE:
                going.append(lane)
        self.running, self.waiting = going[: self.capacity], going[self.capacity :]
        return finished

    def _begin(self, order: LaneOrder, said: _Inbox) -> None:
        try:
            self.running.append(self.pack.lane(order))
        except UserError as error:
            said.failures.append(LaneFailure(order.lane, order.attempt, 0, Failure.CRASH, str(error)))

    def _epoch(self, said: _Inbox) -> None:
        try:
            reports = self.pack.epoch(self.running)
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _out_of_memory(error):
                raise
            if self.group is not None:  # the other workers are in the midst of the same step and cannot be told
                raise NoResources(
                    f"out of memory with {len(self.running)} lanes on several workers", hint="search with fewer --lanes"
                ) from error
            self._halve(said, error)
            return
        failed = {r.lane for r in reports if isinstance(r, LaneFailure)}
        said.epochs += [r for r in reports if isinstance(r, LaneEpoch)]
        said.failures += [r for r in reports if isinstance(r, LaneFailure)]
        self.running = [lane for lane in self.running if lane.order.lane not in failed]

    def _halve(self, said: _Inbox, error: BaseException) -> None:
        """Give the lanes back and go on with half the capacity: a half-made step cannot be continued."""
        for lane in self.running:
            message = f"out of memory with {len(self.running)} lanes: {str(error)[:200]}"
            said.failures.append(LaneFailure(lane.order.lane, lane.order.attempt, lane.epoch, Failure.OOM, message))
        self.capacity = max(1, len(self.running) // 2)
        self.running = []
        self.pack.forget()

    def _encoded(self, seed: int) -> list[torch.Tensor]:
        resident = self.pack.resident
        return encoder_outputs(self._encoder_files(resident, seed), self.start.modalities, resident.target.device)

    def _encoder_files(self, resident: Resident, seed: int) -> dict[str, bytes]:
        """The encoder of a seed: from the cache, trained here, or trained by another pack meanwhile."""
        if seed in self.encoders:
            return self.encoders[seed]
        shape = configuration(dict(zip(SHAPE_KEYS, self.start.shape, strict=True)))
        key = encoder_key(resident, shape, self.start.search_seed, seed)
        while (answer := self.client.encoder(key, self.name)) == "wait":
            time.sleep(_ENCODER_POLL)
        if answer == "train":
            answer = train_encoders(resident, shape, self.start.search_seed, seed)
            self.client.put_encoder(key, answer)
        assert isinstance(answer, dict)
        self.encoders[seed] = answer
        return answer

    def _result(self, lane: Lane) -> LaneResult:
        encoder = None
        if lane.configuration.encoder == "frozen":
            encoder = self._encoder_files(self.pack.resident, lane.seed)
        files = lane_files(lane, self.pack, encoder)
        return LaneResult(lane.order.lane, lane.order.attempt, lane.best_epoch, files)


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
