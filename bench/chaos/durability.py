"""What it costs that nothing acknowledged is lost: syncs of commits and checkpoints, against trials of 5 seconds."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from unittest.mock import patch

from bench.rows import Row
from mcutune.domain.trial import LaneResult
from mcutune.search import ledger
from mcutune.search.coordinator import Coordinator
from tests.search import simulate
from tests.search.simulate import SPACE, FakePack, plan_of

TRIAL = 5.0  # seconds that a trial trains
WEIGHTS = 300_000  # bytes of a checkpoint: somewhat more than the default model's on the planted data has
TEXT = SPACE.replace("rungs: {first: 1, eta: 2}", "rungs: none").replace("seeds: 2", "seeds: 1")


def seconds_of(folder: Path, trials: int, durable: bool) -> float:
    """What the coordinator needs for a trial: words, proposals, commits and checkpoints; with syncs or without any."""
    shutil.rmtree(folder, ignore_errors=True)
    real = simulate.Lane.result

    def result(self: simulate.Lane) -> LaneResult:
        said = real(self)
        content = random.Random(self.order.lane.trial).randbytes(WEIGHTS)
        return LaneResult(said.lane, said.attempt, said.best_epoch, {**said.files, "model.safetensors": content})

    nothing = [] if durable else [patch.object(os, "fsync", _nothing), patch.object(os, "fdatasync", _nothing)]
    with patch.object(simulate.Lane, "result", result):
        for one in nothing:
            one.start()
        synchronous = patch.object(ledger, "SYNCHRONOUS", "FULL" if durable else "OFF")
        try:
            with synchronous:
                coordinator, pack = (
                    Coordinator(plan_of(folder, TEXT, trials=trials, sampler="random")),
                    FakePack("a", 1),
                )
                begun = time.perf_counter()
                while not coordinator.done:
                    pack.step(coordinator)
                return (time.perf_counter() - begun) / trials
        finally:
            for one in nothing:
                one.stop()


def _nothing(*_: object) -> None:
    return None


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The cost of a trial, one lane at a time: the dearest case, where no two trials share a sync."""
    trials = count or (10 if quick else 60)
    folder.mkdir(parents=True, exist_ok=True)
    seconds_of(folder / "warm", 5, durable=True)
    pairs = [(seconds_of(folder / "a", trials, True), seconds_of(folder / "b", trials, False)) for _ in range(3)]
    with_syncs, without = (sorted(column)[1] for column in zip(*pairs, strict=True))
    share = 100 * (with_syncs - without) / TRIAL
    note = (
        f"a trial alone, 5 epochs, each committed, and a checkpoint of {WEIGHTS / 1e6:.1f} MB: "
        f"{1e3 * with_syncs:.1f} ms of the coordinator, {1e3 * without:.1f} ms without any sync; all of it is "
        f"{100 * with_syncs / TRIAL:.2f} %"
    )
    return [
        Row("chaos", "durability: its share of a search at 5-second trials", share, "%", goal="≤ 2 %", met=share <= 2,
            note=note)
    ]  # fmt: skip
