"""What the actor's process adds around the coordinator, without Ray; and a search in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.pack import Timing
from mcutune.errors import Stopped, UserError
from mcutune.search import actor as actor_module
from mcutune.search.actor import CoordinatorActor, Surroundings
from mcutune.search.runner import Job, run_in_process
from tests.cluster.fake_search import FakeCoordinator, fake_run_pack, fake_snapshot


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CoordinatorActor]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCUTUNE_HOME", "elsewhere")
    monkeypatch.setattr(actor_module, "die_with", lambda pid: None)
    return lambda make, **more: CoordinatorActor(
        "r", make, Surroundings.of_this_process(tmp_path), put=lambda value: ("reference", value), **more
    )


def work(actor: CoordinatorActor, pack: str) -> None:
    class Direct:
        def __getattr__(self, name: str) -> Any:
            return getattr(actor, name)

        def fold_data(self, fold: str) -> Any:
            return actor.fold_data(fold)[0][1]

    fake_run_pack(Direct(), pack=pack, capacity=2, node="n", device="cpu", seconds=0)


def test_a_pack_through_the_actor(host: Callable[..., CoordinatorActor], tmp_path: Path) -> None:
    reports: list[Any] = []
    actor = host(FakeCoordinator, report=reports.append, snapshot=fake_snapshot)
    assert os.environ["MCUTUNE_HOME"] == str(tmp_path)
    name, left = actor.begin(0, "unread") or pytest.fail("work is left")
    assert (name, left) == ("r-pack0-1", None)
    work(actor, name)
    answer = actor.look()
    assert (answer.progress.done, answer.progress.finished, answer.error, answer.losses) == (True, 8, None, ())
    assert reports[0].folds["f"].trials == {"finished": 8}
    assert actor.begin(0, "x") is None  # no work left


def test_arrays_are_put_once(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(FakeCoordinator)
    assert actor.fold_data("f")[0] is actor.fold_data("f")[0]


def test_a_lost_group_is_told_and_its_rest_handed_on(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(FakeCoordinator)
    actor.begin(0, "")
    actor.hold(0, "placement")
    assert actor.begin(0, "killed") == ("r-pack0-2", "placement")
    answer = actor.look()
    assert answer.progress.lost == ("r-pack0-1",)
    assert answer.losses == ("r-pack0-1: killed",)


def test_groups_that_die_young_are_given_up(
    host: Callable[..., CoordinatorActor], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(actor_module.time, "monotonic", lambda: now[0])
    actor = host(FakeCoordinator, brief_lives=2)
    assert actor.begin(0, "")
    assert actor.begin(0, "dies at once")
    assert actor.begin(1, "")  # another pack is counted for itself
    now[0] = 100.0
    assert actor.begin(0, "a node went away after a long life")
    assert actor.begin(0, "dies at once")
    assert actor.begin(0, "dies at once") is None


def test_packs_start_in_turn(host: Callable[..., CoordinatorActor], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(actor_module.time, "monotonic", lambda: now[0])
    actor = host(FakeCoordinator, at_once=2)
    assert actor.turn(0) and actor.turn(1) and actor.turn(0)  # who asks again keeps its turn
    assert not actor.turn(2)
    actor.begin(0, "")
    assert not actor.turn(2)
    actor.hold(0, "placement")
    assert actor.turn(2) and not actor.turn(3)
    now[0] = 100.0  # the others wait for the cluster to grow
    assert actor.turn(3)


def test_no_pack_waits_for_its_turn_when_no_work_is_left(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(FakeCoordinator, at_once=1)
    assert actor.turn(0) and not actor.turn(1)
    actor.begin(0, "")
    work(actor, "r-pack0-1")
    assert actor.turn(1) and actor.begin(1, "") is None


def test_an_error_of_the_ledger_ends_the_search_not_the_pack(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(partial(FakeCoordinator, fail_after=2))
    name, _ = actor.begin(0, "") or pytest.fail("work is left")
    work(actor, name)  # ends: it was told that all is done
    assert "disk is full" in str(actor.look().error)
    assert actor.join("p", 1, "n", "cpu") is None
    assert actor.begin(0, "") is None
    with pytest.raises(UserError, match="disk is full"):
        actor.encoder("key", name)
    assert [str(actor.look().error)] * 2 == ["the ledger's disk is full"] * 2


def test_an_error_of_the_start_is_heard(host: Callable[..., CoordinatorActor]) -> None:
    def busy() -> None:
        raise UserError("another process holds the run")

    actor = host(busy)
    assert "holds the run" in str(actor.look().error)
    assert actor.begin(0, "") is None
    actor.close()


def test_after_the_end_nothing_is_written(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(FakeCoordinator)
    actor.close()
    assert actor.join("p", 1, "n", "cpu") is None


def test_the_actor_dies_with_the_process_that_searches() -> None:
    child = (
        "import sys, time\nfrom mcutune.search.actor import die_with\n"
        "die_with(int(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = subprocess.Popen([sys.executable, "-c", child, str(parent.pid)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        assert process.poll() is None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert process.wait(timeout=5) == 1
    finally:
        parent.kill()
        process.kill()


def job(tmp_path: Path, **options: Any) -> Job:
    return Job("r", partial(FakeCoordinator, **options), tmp_path, capacity=2, logs=tmp_path / "logs")


def test_a_search_in_this_process(tmp_path: Path) -> None:
    seen: list[int] = []
    progress = run_in_process(job(tmp_path), run=fake_run_pack, watch=lambda p: seen.append(p.finished))
    assert progress.done and progress.finished == 8
    assert seen == sorted(seen) and seen[-1] == 8


def test_a_signal_stops_a_search_in_this_process(tmp_path: Path) -> None:
    def watch(progress: Any) -> None:
        if progress.finished == 2 and not progress.stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        run_in_process(job(tmp_path, lanes=100), run=fake_run_pack, watch=watch)


def test_a_lane_that_fits_nowhere_ends_the_search_and_not_the_pack(host: Callable[..., CoordinatorActor]) -> None:
    actor = host(FakeCoordinator)
    actor.put_timings({}, (Timing(1, 0.5, 0, 0.1),))
    assert len(actor.timings({})) == 1
    actor.sized("p", 2, "measured")
    assert actor.refuse("p", "one lane does not fit", "search smaller ones") is True  # the pack leaves in peace
    assert str(actor.look().error) == "one lane does not fit (search smaller ones)"
    assert actor.begin(0, "unread") is None  # and none follows
