"""A coordinator and a pack without a model, which keep their promises to each other; for tests of what runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.cluster.metrics import FoldSnapshot, Snapshot
from mcutune.domain.pack import Client, PackStart, Timing
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneId, LaneOrder, LaneResult, Orders, Verdict
from mcutune.errors import NoResources, UserError


@dataclass(frozen=True)
class FakeProgress:
    done: bool
    stopped: bool
    finished: int
    epochs: int
    packs: dict[str, str]  # pack -> node
    lost: tuple[str, ...]
    lanes_busy: int


@dataclass
class FakeCoordinator:
    """`lanes` lanes of `epochs` epochs. `fail_after`: a UserError in the advance after that many finished lanes.

    `together`: none is handed out before so many packs are there.
    """

    lanes: int = 8
    epochs: int = 3
    fail_after: int | None = None
    together: int = 1
    marker: Path | None = None
    stopped: bool = False
    counted: int = 0
    packs: dict[str, str] = field(default_factory=dict)
    lost_packs: list[str] = field(default_factory=list)
    held: dict[str, dict[LaneId, int]] = field(default_factory=dict)  # pack -> lane -> attempt
    finished: dict[LaneId, int] = field(default_factory=dict)
    attempts: dict[LaneId, int] = field(default_factory=dict)
    closed: bool = False
    known: list[Timing] = field(default_factory=list)
    sizes: list[tuple[str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting = [LaneId("f", trial, 0) for trial in range(self.lanes)]
        if self.marker is not None:  # where the coordinator's process runs, and under which home
            self.marker.write_text(f"{os.getpid()} {Path.cwd()} {os.environ['MCUTUNE_HOME']}", encoding="utf-8")

    @property
    def done(self) -> bool:
        return len(self.finished) == self.lanes

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        if self.done or self.stopped:
            return None
        self.packs[pack] = node
        return PackStart("f", (), 4, 0, "ua", (0, 1, 2), "mean", ("audio", "text"))

    def advance(
        self,
        pack: str,
        epochs: list[LaneEpoch],
        failures: list[LaneFailure],
        results: list[LaneResult],
        places: int,
    ) -> Orders:
        if self.fail_after is not None and len(self.finished) >= self.fail_after:
            raise UserError("the ledger's disk is full")
        self.counted += len(epochs)
        held = self.held.setdefault(pack, {})
        for result in results:
            if held.pop(result.lane, None) == result.attempt:
                assert result.lane not in self.finished, "a lane finished twice"
                self.finished[result.lane] = result.attempt
        verdicts = {e.lane: Verdict.FINISH if e.epoch >= self.epochs else Verdict.CONTINUE for e in epochs}
        start = []
        there = len(self.packs) >= self.together
        while there and places > len(held) and self.waiting and not self.stopped:
            lane = self.waiting.pop(0)
            held[lane] = self.attempts[lane] = self.attempts.get(lane, 0) + 1
            start.append(LaneOrder(lane, held[lane], {}, self.epochs))
        return Orders(verdicts, tuple(start), wait=0.1, done=self.done or self.stopped)

    def fold_data(self, fold: str) -> dict[str, Any]:
        return {"fold": fold, "features": np.arange(200_000, dtype=np.float32)}

    def encoder(self, key: str, pack: str) -> str:
        return "train"

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        pass

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        return tuple(self.known)

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        self.known.extend(timings)

    def sized(self, pack: str, capacity: int, how: str) -> None:
        self.sizes.append((pack, capacity, how))

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        raise NoResources(problem, hint=remedy)

    def lost(self, pack: str, reason: str) -> None:
        self.lost_packs.append(pack)
        self.waiting = [*self.held.pop(pack, {}), *self.waiting]

    def progress(self) -> FakeProgress:
        busy = sum(len(lanes) for lanes in self.held.values())
        lost = tuple(self.lost_packs)
        return FakeProgress(self.done, self.stopped, len(self.finished), self.counted, dict(self.packs), lost, busy)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


def fake_snapshot(progress: FakeProgress) -> Snapshot:
    fold = FoldSnapshot(
        {"finished": progress.finished}, best=0.5, scores={"audio+text": 0.6}, probabilities={"audio": 0.3}
    )
    return Snapshot({"f": fold}, progress.epochs, progress.lanes_busy, len(progress.packs))


def fake_run_pack(
    client: Client,
    *,
    pack: str,
    capacity: int,
    node: str,
    device: str,
    heartbeat: Callable[[dict[str, Any]], None] | None = None,
    group: Any = None,
    measure: bool = False,
    seconds: float = 0.05,
) -> None:
    """As training.loop.run_pack; an epoch is `seconds` of sleep."""
    start = client.join(pack, capacity, node, device)
    if start is None:
        return
    assert client.fold_data(start.fold)["features"].sum() > 0
    lanes: dict[LaneId, tuple[LaneOrder, int]] = {}
    epochs: list[LaneEpoch] = []
    results: list[LaneResult] = []
    while True:
        orders = client.advance(pack, epochs, [], results, capacity)
        if heartbeat is not None:
            heartbeat({"lanes": len(lanes)})
        done = [lane for lane, verdict in orders.verdicts.items() if verdict is Verdict.FINISH]
        results = [LaneResult(lane, lanes.pop(lane)[0].attempt, 1, {"model.safetensors": b"x"}) for lane in done]
        lanes.update({order.lane: (order, 0) for order in orders.start})
        epochs = []
        if results:
            continue
        if orders.done:
            return
        time.sleep(seconds if lanes else orders.wait)
        lanes = {lane: (order, epoch + 1) for lane, (order, epoch) in lanes.items()}
        epochs = [
            LaneEpoch(lane, order.attempt, epoch, (0.1, 0.2, 0.3), 1.0, (0.3, 0.3, 0.4), (0.0, 0.0, 0.0))
            for lane, (order, epoch) in lanes.items()
        ]
