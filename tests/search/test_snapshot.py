"""The summary that a writer keeps for readers: taken only when whole, of this ledger and of now."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mcutune.search import snapshot, summary
from mcutune.search.ledger import read_ledger
from mcutune.search.snapshot import SNAPSHOT, read_snapshot
from mcutune.search.summary import summarise, summary_of
from tests.search.simulate import FakePack, Play, plan_of
from tests.search.words import Clock


def playing(make: Any, clock: Clock | None = None, trials: int = 14) -> Any:
    """A coordinator in the middle of a search, and its pack."""
    coordinator, pack = make(clock=clock or Clock(), trials=trials), FakePack("a", 4)
    for _ in range(8):
        pack.step(coordinator)
    return coordinator, pack


def test_it_says_what_the_whole_ledger_says(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    coordinator, pack = playing(make, clock, trials=30)
    folder = coordinator.plan.folder
    for _ in range(12):
        clock.now += 1e3
        pack.step(coordinator)
        assert read_snapshot(folder) is not None
        with monkeypatch.context() as patch:
            patch.setattr(summary, "read_ledger", None)  # would fail if it were asked
            found = summarise(folder)
        assert found == summary_of(folder, read_ledger(folder)[0], held=True)
    assert found.winners and found.counts["finished"] > 3


def test_a_run_that_nobody_holds_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path / "run")
    Play(plan).run()
    assert read_snapshot(plan.folder) is not None
    monkeypatch.setattr(summary, "read_snapshot", None)
    assert summarise(plan.folder).state == "finished"


def test_it_is_made_now_and_then_only(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = snapshot.Snapshots._write
    monkeypatch.setattr(snapshot.Snapshots, "_write", lambda self, content: made.append(1) or real(self, content))
    clock = Clock()
    coordinator, pack = playing(make, clock)
    assert len(made) == 1
    clock.now += 1e3
    pack.step(coordinator)
    coordinator.progress()
    assert len(made) == 2


def test_an_old_one_is_not_taken(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator, pack = playing(make)
    folder = coordinator.plan.folder
    assert read_snapshot(folder) is not None  # older than the last commit, but of this second
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert read_snapshot(folder) is None
    assert summarise(folder) == summary_of(folder, read_ledger(folder)[0], held=True)
    coordinator.close()
    Play(coordinator.plan).run(limit=200)


def test_one_of_another_host_or_another_ledger_is_not_taken(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator, pack = playing(make)
    folder = coordinator.plan.folder
    with monkeypatch.context() as patch:
        patch.setattr(snapshot.socket, "gethostname", lambda: "another")
        assert read_snapshot(folder) is None
    body = json.loads((folder / SNAPSHOT).read_bytes())
    del body["hash"]
    for key, value in (("link", "0" * 64), ("number", 10**6)):
        other = {**body, key: value}
        (folder / SNAPSHOT).write_text(json.dumps(snapshot.sealed(other)))
        assert read_snapshot(folder) is None


def test_no_flipped_bit_is_read(make: Any) -> None:
    coordinator, _ = playing(make)
    path = coordinator.plan.folder / SNAPSHOT
    good, facts = path.read_bytes(), read_snapshot(coordinator.plan.folder)
    assert facts is not None
    for at in range(0, 8 * len(good), 7):
        flipped = bytearray(good)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert read_snapshot(coordinator.plan.folder) in (None, facts)
    path.write_bytes(good[:-9])
    assert read_snapshot(coordinator.plan.folder) is None


def test_a_writer_takes_away_what_one_before_it_left(make: Any) -> None:
    coordinator, _ = playing(make)
    path = coordinator.plan.folder / SNAPSHOT
    coordinator.close()
    old = path.read_bytes()
    make(trials=14)
    assert path.read_bytes() != old


def test_without_room_the_search_goes_on(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.Snapshots, "_write", full)
    coordinator, _ = playing(make)
    assert not (coordinator.plan.folder / SNAPSHOT).exists()
    assert summarise(coordinator.plan.folder).state == "running"
