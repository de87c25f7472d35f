"""SIGKILL, for real: at any moment, and before and after every write, sync and rename of a small search.

A child is forked, plays the search, and is killed (or kills itself at the n-th call); the run it leaves is checked
against what it had acknowledged, and continued to the end.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcutune.domain.trial import LaneResult, State
from mcutune.files import sha256_file
from mcutune.search import ledger
from mcutune.search.ledger import read_ledger
from mcutune.search.run_folder import Plan
from tests.search.simulate import SMALL, Play, plan_of


def forked(work: Callable[[], Any]) -> int:
    """The pid of a child that does the work and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def play(plan: Plan, acks: int, seed: int = 0, capacity: int = 2) -> str:
    """Play on, writing a line for every acknowledged result to the file descriptor."""

    def acknowledged(result: LaneResult) -> None:
        os.write(acks, f"{result.lane.trial} {result.lane.seed}\n".encode())

    return Play(plan, packs=2, capacity=capacity, seed=seed, acknowledged=acknowledged).run()


def check_acknowledged(plan: Plan, acks: Path) -> None:
    """Every acknowledged lane is finished, once; every lane that the ledger calls finished has its checkpoint."""
    said = [tuple(map(int, line.split())) for line in acks.read_text().splitlines()]
    assert len(said) == len(set(said)), "a lane was acknowledged twice"
    if not (plan.folder / ledger.DATABASE).exists():
        assert not said
        return
    studies = read_ledger(plan.folder, keep=True)[0].studies
    trials = studies["1"].trials if studies else []
    finished = {
        (trial.number, lane.seed): lane.end.weights
        for trial in trials
        for lane in trial.lanes
        if lane.state is State.FINISHED and lane.end is not None
    }
    assert set(said) <= finished.keys(), "a lane was acknowledged and is lost"
    for (trial, seed), weights in finished.items():
        if trials[trial].state is not State.FAILED:
            path = plan.folder / "checkpoints" / "1" / str(trial) / str(seed) / "model.safetensors"
            assert sha256_file(path) == weights


def killed_at_random_moments_the_ledger_is_the_same(tmp_path: Path) -> None:
    expected = Play(plan_of(tmp_path / "reference", trials=60)).run()
    plan, acks = plan_of(tmp_path / "run", trials=60), tmp_path / "acks"
    rng, kills = random.Random(1), 0
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for attempt in range(200):
        pid = forked(lambda attempt=attempt: play(plan, file, attempt))  # type: ignore[misc]
        wanted = acks.stat().st_size + rng.choice([1, 9])  # one or a few results from now
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and acks.stat().st_size < wanted:
            time.sleep(0.001)
        if ended[0] == 0:
            time.sleep(rng.uniform(0, 0.01))
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
        check_acknowledged(plan, acks)
        if not os.WIFSIGNALED(ended[1]):
            assert ended[1] == 0
            break
        kills += 1
    os.close(file)
    assert Play(plan).run() == expected and kills >= 3


def killing(at: int, counter: list[int]) -> None:
    """Make every write, sync, rename and database commit of this process a point to die at, before and after."""

    def wrapped(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            counter[0] += 1
            if counter[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*args, **options)
            counter[0] += 1
            if counter[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(module, name, call)

    for name in ("fsync", "fdatasync", "pwrite", "rename", "replace", "mkdir"):
        wrapped(os, name)
    wrapped(ledger, "insert")


def killed_at_every_point_of_the_way_to_disk(tmp_path: Path) -> None:
    expected = Play(plan_of(tmp_path / "reference", SMALL)).run()
    points = tmp_path / "points"

    def count() -> None:
        counter = [0]
        killing(0, counter)
        Play(plan_of(tmp_path / "counted", SMALL), packs=2, capacity=2).run()
        points.write_text(str(counter[0]))

    os.waitpid(forked(count), 0)
    last = int(points.read_text())
    assert last >= 60
    for at in range(1 + random.Random(0).randrange(3), last + 1, 3):
        plan, acks = plan_of(tmp_path / f"run{at}", SMALL), tmp_path / f"acks{at}"
        file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def work(at: int = at, plan: Plan = plan, file: int = file) -> None:
            killing(at, [0])
            play(plan, file)

        _, status = os.waitpid(forked(work), 0)
        if os.waitstatus_to_exitcode(status) == 0:  # the snapshot for readers goes by the clock: some calls fewer
            assert at > 0.9 * last, (at, last)
            break
        assert os.WIFSIGNALED(status), (at, last)
        check_acknowledged(plan, acks)
        assert play(plan, file) == expected, (at, last)
        check_acknowledged(plan, acks)
        os.close(file)
