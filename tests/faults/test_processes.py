"""Section A without Ray: kills, stops and limits of a search and its packs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.cluster.resources import Capacity, Node, Request, plan
from mcutune.domain.trial import Failure
from mcutune.errors import NoResources
from mcutune.search.canonical import ledger_hash
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.summary import status
from mcutune.training.hardware import gpus
from tests.cluster import test_worker
from tests.faults.conftest import NAME, SEARCH, World
from tests.ray.conftest import patience
from tests.search import kill
from tests.search.kill import forked
from tests.search.simulate import FakePack, Play, plan_of
from tests.search.words import ONE_SHAPE
from tests.training import test_planning


@pytest.mark.durable
def test_01_killed_at_random_moments(tmp_path: Path) -> None:
    """The engine; the whole Ray stack by `make test-long` and `make chaos`."""
    kill.killed_at_random_moments_the_ledger_is_the_same(tmp_path)


def test_02_killed_at_every_point_of_the_way_to_disk(tmp_path: Path) -> None:
    """Before and after every third of the calls that make files durable; every system call by `make chaos`."""
    kill.killed_at_every_point_of_the_way_to_disk(tmp_path)


class _Proxy:
    """The coordinator, for a pack in another process."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._pipe.send((method, arguments))
            return self._pipe.recv()

        return call


def test_05_a_pack_that_is_stopped_beyond_its_lease(tmp_path: Path) -> None:
    expected = Play(plan_of(tmp_path / "reference", ONE_SHAPE)).run()
    client = Coordinator(plan_of(tmp_path / "run", ONE_SHAPE), lease=0.3)
    ours, theirs = connection.Pipe()

    def straggler() -> None:
        pack, proxy = FakePack("a", 2), _Proxy(theirs)
        while True:
            pack.step(proxy)  # type: ignore[arg-type]

    pid = forked(straggler)
    try:
        for _ in range(6):
            _answer(client, ours)
        os.kill(pid, signal.SIGSTOP)  # what it has said already stays unanswered until it goes on
        time.sleep(0.4)
        other = FakePack("b", 2)
        for _ in range(8):
            other.step(client)
        assert not client._packs.alive("a")
        os.kill(pid, signal.SIGCONT)
        _answer(client, ours)  # the late word of a pack that is not known any more
        while not client.done:
            other.step(client)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        client.close()
    assert ledger_hash(read_ledger(tmp_path / "run")[0]) == expected


def _answer(client: Coordinator, pipe: connection.Connection) -> None:
    assert pipe.poll(200)
    method, arguments = pipe.recv()
    pipe.send(getattr(client, method)(*arguments))


def test_06_more_packs_than_cpus() -> None:
    """The process that opens a pack takes no CPU, so two packs of one CPU fit on two; three are refused."""
    two = Capacity((Node(2.0),))
    assert plan(Request(packs=2), two).packs == 2
    with pytest.raises(NoResources, match="3 packs x 1 worker x 1 CPU = 3 CPUs are asked for, the place has 2 CPUs"):
        plan(Request(packs=3), two)


MANY = (*SEARCH, "--trials", "40")


@pytest.fixture(scope="module")
def uninterrupted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the ledger of such a search."""
    home = tmp_path_factory.mktemp("uninterrupted")
    shutil.copytree(made / "datasets", home / "datasets")
    shutil.copy(made / "tiny.yaml", home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCUTUNE_HOME", str(home))
        patch.chdir(home)
        assert cli.run(list(MANY)) == 0
    return str(status(home / "runs" / NAME)["ledger_hash"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_07_stopped_once(fresh: World, uninterrupted: str, number: signal.Signals) -> None:
    process = fresh.shell(*MANY)
    while not (fresh.run / "checkpoints").exists():
        assert process.poll() is None
        time.sleep(0.005)
    start = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate()
    assert time.monotonic() - start < patience(10)
    assert process.returncode == 6 and err == "error: the search is stopped (the same command continues)\n", err
    records, _ = read_ledger(fresh.run)
    assert sum(len(study.trials) for study in records.studies.values()) < 40
    fresh.good("doctor", NAME)
    if number is signal.SIGINT:
        fresh.good(*MANY)
        assert status(fresh.run)["ledger_hash"] == uninterrupted


def test_07_stopped_while_encoders_are_trained(fresh: World) -> None:
    """The one that is being trained is the last; six are needed."""
    space, encoders = fresh.home / "tiny.yaml", fresh.home / "encoders"
    shutil.rmtree(encoders)
    space.write_text(space.read_text().replace("encoder_epochs: 2", "encoder_epochs: 200"))
    process = fresh.shell(*SEARCH)
    while not (encoders.exists() and list(encoders.glob("[!.]*"))):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 6 and err == "error: the search is stopped (the same command continues)\n", err
    assert len(list(encoders.glob("[!.]*"))) <= 2
    fresh.good("doctor", NAME)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_07_stopped_twice(fresh: World, number: signal.Signals) -> None:
    """While an encoder is trained, for many seconds here: the first signal lets that end, the second does not."""
    space = fresh.home / "tiny.yaml"
    space.write_text(space.read_text().replace("encoder_epochs: 2", "encoder_epochs: 1000"))
    process = fresh.shell(*SEARCH)
    try:
        while not (fresh.run / "ledger.head").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        time.sleep(0.5)  # two at once could arrive as one
        assert process.poll() is None, "the first one ended it"
        process.send_signal(number)
        _, err = process.communicate(timeout=patience(10))
    finally:
        process.kill()
    assert process.returncode == 6 and err == "error: stopped at once (the same command continues)\n", err
    fresh.good("doctor", NAME)


def test_09_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_worker.test_an_allocation_beyond_the_bound_fails_in_the_process()
    test_planning.test_out_of_memory_later_halves_the_pack_and_changes_no_number(tmp_path, monkeypatch)


def test_09_out_of_memory_twice(make: Any) -> None:
    from tests.search import test_coordinator

    test_coordinator.test_failures_are_tried_again_as_often_as_that_can_help(make, Failure.OOM, 2)


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_10_a_gpu_where_there_is_none(fresh: World) -> None:
    err = fresh.refused(5, *SEARCH, "--gpus-per-pack", "1")
    assert "1 GPU" in err and "0 GPUs" in err
    assert not (fresh.run / "ledger.db").exists()
    assert "1 pack of up to 8 lanes, 1 CPU each" in fresh.good(*SEARCH), "nobody is told on what it runs"
