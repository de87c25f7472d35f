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
from mcutune.training.config import SHAPE_KEYS, Configuration, configuration
from mcutune.training.device import deterministic
from mcutune.training.encoder_stage import encoder_key, encoder_outputs, train_encoder
from mcutune.training.lane import Lane
from mcutune.training.memory import out_of_memory
from mcutune.training.pack import Pack
from mcutune.training.planning import size_of, unfit
from mcutune.training.result import lane_files

Heartbeat = Callable[[dict[str, Any]], None]
_RESULTS = {"best": 16, "every": 2}  # a word, by what is kept: each carries some megabytes, or some tens of them
_ENCODER_POLL = 0.2  # seconds between asking whether another pack has trained the encoder


def shape_of(start: PackStart) -> Configuration:
    """The defaults with what all lanes of a pack have in common."""
    return configuration(dict(zip(SHAPE_KEYS, start.shape, strict=True)))


def run_pack(
    client: Client,
    *,
    pack: str,
    capacity: int,
    node: str,
    device: str,
    heartbeat: Heartbeat | None = None,
    group: Any = None,
    measure: bool = False,
) -> None:
    """Train lanes for the coordinator behind `client` until it has no more work.

    capacity: lanes at once; with `measure` the most, of which as many are used as run best (training/planning.py).
    group: a torch.distributed group, where one pack runs data-parallel on several workers; every worker calls this, and
    `client` must give each the same answers (training/worker.py). Nothing is measured then: each would find another
    size.
    """
    deterministic()
    while (start := client.join(pack, capacity, node, device)) is not None:
        shift = _Shift(client, start, pack, capacity, torch.device(device), heartbeat, group)
        if not shift.prepare(measure and group is None):
            return
        shift.work()
        del shift  # with its pack, before the next one is made and finds out how much memory there is
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
        self.device, self.group = device, group
        self.encoders: dict[int, list[dict[str, bytes]]] = {}
        self.pack: Pack
        self.unfit = ""  # why no lane can run here
        self.running: list[Lane] = []
        self.parked: dict[LaneId, Lane] = {}
        self.ending: list[Lane] = []  # whose result is to be sent
        self.waiting: list[Lane] = []  # told to go on, but their place was given away meanwhile

    def prepare(self, measure: bool) -> bool:
        """Make the pack and settle its size; False where it is to leave, since others can do what it cannot.

        Raises NoResources where nobody can.
        """
        try:
            self._make()
            if measure:
                self.capacity, how = size_of(self.pack, self.client, self.capacity)
                self.client.sized(self.name, self.capacity, how)
        except NoResources as error:
            if self.group is not None:  # the other workers do not know
                raise
            self.unfit = error.message
            return not self.client.refuse(self.name, error.message, error.hint or "")
        return True

    def _make(self) -> None:
        data = self.client.fold_data(self.start.fold)
        try:
            self.pack = Pack(data, self.start, self._encoded, self.device, self.group)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise unfit(shape_of(self.start), self.device) from error

    def work(self) -> None:
        said = _Inbox()
        while True:
            orders = self._advance(said)
            said = _Inbox()
            self.ending += self._apply(orders)
            for order in orders.start:
                self._begin(order, said)
            most = min((_RESULTS[lane.configuration.kept] for lane in self.ending), default=0)
            said.results += [self._result(lane) for lane in self.ending[:most]]
            del self.ending[:most]
            if said.results or said.failures:
                continue
            if orders.done and not self.running and not self.parked and not self.waiting:
                return
            self._epoch(said) if self.running else time.sleep(orders.wait)

    def _advance(self, said: _Inbox) -> Orders:
        orders = self.client.advance(self.name, said.epochs, said.failures, said.results, self.capacity)
        self._beat(encoding=False)
        return orders

    def _beat(self, encoding: bool) -> None:
        """Say what is being done. `encoding`: an encoder is about to be trained, and none is lost by ending here."""
        if self.heartbeat is not None:
            counts = {"lanes": len(self.running), "parked": len(self.parked), "encoding": encoding}
            self.heartbeat({**counts, "fold": self.start.fold})

    def _apply(self, orders: Orders) -> list[Lane]:
        """Sort the lanes by what was ordered for them; returns those that are to send their result."""
        held = [*self.running, *self.waiting, *self.parked.values()]
        held.sort(key=lambda lane: lane.order.lane)  # others wait for the lowest
        finished, going = [], []
        for lane in held:
            verdict = orders.verdicts.get(lane.order.lane, Verdict.CONTINUE)
            parked = lane.order.lane in self.parked
            if verdict is Verdict.PARK:
                if not parked:
                    lane.vectors = lane.vectors.apart()
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
        if self.unfit:
            said.failures.append(LaneFailure(order.lane, order.attempt, 0, Failure.OOM, self.unfit))
            return
        try:
            self.running.append(self.pack.lane(order))
        except UserError as error:
            said.failures.append(LaneFailure(order.lane, order.attempt, 0, Failure.CRASH, str(error)))
        except (MemoryError, RuntimeError) as error:
            message = self._out_of_memory(error)
            said.failures.append(LaneFailure(order.lane, order.attempt, 0, Failure.OOM, message))
            self._shrink(len(self.running))

    def _epoch(self, said: _Inbox) -> None:
        try:
            reports = self.pack.epoch(self.running)
        except (MemoryError, RuntimeError) as error:
            self._halve(said, self._out_of_memory(error))
            return
        failed = {r.lane for r in reports if isinstance(r, LaneFailure)}
        said.epochs += [r for r in reports if isinstance(r, LaneEpoch)]
        said.failures += [r for r in reports if isinstance(r, LaneFailure)]
        self.running = [lane for lane in self.running if lane.order.lane not in failed]

    def _out_of_memory(self, error: BaseException) -> str:
        """What to say of it. Raises the error itself where it is another, NoResources where it cannot be mended."""
        if not out_of_memory(error):
            raise error
        if self.group is not None:  # the other workers are in the midst of the same step and cannot be told
            raise NoResources(
                f"out of memory with {len(self.running)} lanes on several workers", hint="search with fewer --lanes"
            ) from error
        return f"out of memory with {len(self.running)} lanes: {str(error)[:200]}"

    def _halve(self, said: _Inbox, message: str) -> None:
        """Give the lanes back and go on with half the capacity: a half-made step cannot be continued."""
        for lane in self.running:
            said.failures.append(LaneFailure(lane.order.lane, lane.order.attempt, lane.epoch, Failure.OOM, message))
        self._shrink(len(self.running) // 2)
        self.running = []
        self.pack.forget()

    def _shrink(self, lanes: int) -> None:
        if max(1, lanes) < self.capacity:
            self.capacity = max(1, lanes)
            self.client.sized(self.name, self.capacity, "after out of memory")

    def _encoded(self, seed: int) -> list[torch.Tensor]:
        return encoder_outputs(self._encoder_entries(seed), self.pack.resident.target.device)

    def _encoder_entries(self, seed: int) -> list[dict[str, bytes]]:
        """The encoders of a seed, a modality each: from the cache, trained here, or by another pack meanwhile."""
        if seed not in self.encoders:
            given = self.pack.resident, shape_of(self.start), self.start.search_seed, seed
            keys = [encoder_key(*given, m) for m in range(len(self.start.modalities))]
            found: dict[int, dict[str, bytes]] = {}
            while len(found) < len(keys):
                before = len(found)
                for m in sorted(set(range(len(keys))) - set(found)):
                    answer = self.client.encoder(keys[m], self.name)
                    if answer == "train":
                        self._beat(encoding=True)
                        answer = train_encoder(*given, m)
                        self.client.put_encoder(keys[m], answer)
                    if answer != "wait":
                        found[m] = answer
                if len(found) == before:
                    time.sleep(_ENCODER_POLL)
            self.encoders[seed] = [found[m] for m in range(len(keys))]
        return self.encoders[seed]

    def _result(self, lane: Lane) -> LaneResult:
        encoders = self._encoder_entries(lane.seed) if lane.configuration.encoder == "frozen" else []
        files = lane_files(lane, self.pack, encoders)
        return LaneResult(lane.order.lane, lane.order.attempt, lane.best_epoch, files)
