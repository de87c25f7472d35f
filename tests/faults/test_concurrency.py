"""Section G: several at once, and more of everything."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.scale import Played, time_commits
from mcutune.cluster import warden
from mcutune.domain.trial import Failure, LaneEpoch, LaneFailure, LaneId, LaneOrder, State
from mcutune.errors import Busy
from mcutune.search import lock as lock_module
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.lock import RunLock, holder_of
from mcutune.search.summary import status
from tests.faults.conftest import SEARCH, World
from tests.ray.conftest import patience
from tests.search import test_continuing, test_coordinator
from tests.search.kill import forked
from tests.search.simulate import FakePack, plan_of
from tests.search.words import ONE_SHAPE, result, said


def test_59_two_takers_of_one_lock_fifty_times(tmp_path: Path) -> None:
    for number in range(50):
        folder, told = tmp_path / str(number), tmp_path / f"told{number}"
        folder.mkdir()
        ready_read, ready_write = os.pipe()

        def take(folder: Path = folder, told: Path = told, ready: int = ready_read) -> None:
            os.read(ready, 1)
            try:
                RunLock(folder, patience=0.0)
            except Busy as error:
                told.write_text(str(error))
                os._exit(3)
            while not told.exists():
                time.sleep(0.001)

        pids = [forked(take) for _ in range(2)]
        os.write(ready_write, b"xx")
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
        assert codes == [0, 3]
        text = told.read_text()
        assert "in use by" in text
        for file in (ready_read, ready_write):
            os.close(file)


def test_59_a_taker_that_has_not_signed_yet_is_waited_for(tmp_path: Path) -> None:
    """Between taking a lock and writing who did, it is nobody's: the other one is not told of `another process`."""
    path = tmp_path / "lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)

    def signed(seconds: float) -> None:
        os.pwrite(file, b'{"host": "elsewhere", "pid": 7, "since": "2026"}', 0)

    with pytest.raises(Busy, match="in use by process 7 on elsewhere since 2026"):
        RunLock(tmp_path, name="lock", patience=0.0, pause=signed)
    os.ftruncate(file, 0)
    paused: list[float] = []
    with pytest.raises(Busy, match="in use by another process"):
        RunLock(tmp_path, name="lock", patience=0.0, pause=paused.append)
    assert sum(paused) == 1.0
    os.close(file)


def test_59_two_searches_in_the_same_second(fresh: World) -> None:
    """As commands. The second is told who works; or comes so late that it finds the result."""
    searches = [fresh.shell(*SEARCH, "--trials", "12") for _ in range(2)]
    ends = [(process.communicate(), process.returncode) for process in searches]
    codes = sorted(code for _, code in ends)
    assert codes in ([0, 3], [0, 0]), ends
    for (_, err), code in ends:
        if code == 3:
            assert err.startswith("error: ") and "in use by process" in err and " since 20" in err
    counts = status(fresh.run)["trials"]
    assert counts["running"] == 0 and sum(counts.values()) == 12


def test_60_a_lock_of_a_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold() -> None:
        RunLock(tmp_path)
        (tmp_path / "held").touch()
        time.sleep(60)

    pid = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.001)
    assert holder_of(tmp_path) is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    start = time.monotonic()
    assert holder_of(tmp_path) is None, "the file still names it"
    RunLock(tmp_path, patience=0.0).release()
    assert time.monotonic() - start < patience(1)


def test_60_a_pid_that_is_used_again(tmp_path: Path) -> None:
    """The file names this very process, but one that started at another time."""
    lock = RunLock(tmp_path)
    content = (tmp_path / lock_module.NAME).read_text()
    lock.release()
    started = lock_module._started(os.getpid())
    (tmp_path / lock_module.NAME).write_text(content.replace(f'"{started}"', '"1"'))
    assert holder_of(tmp_path) is None


def test_60_who_clears_a_killed_search_away_is_not_ended_with_it(tmp_path: Path) -> None:
    """The next search looks into the folder of a killed one's Ray while a warden ends whatever is left in there."""
    for name in ("lock", "log"):
        (tmp_path / name).touch()

    def hold(*names: str) -> None:
        files = [(tmp_path / name).open() for name in names]
        (tmp_path / f"{names[0]} is open").touch()
        time.sleep(600)
        assert files

    left, searching = forked(lambda: hold("log")), forked(lambda: hold("lock", "log"))
    try:
        while not all((tmp_path / f"{name} is open").exists() for name in ("lock", "log")):
            time.sleep(0.001)
        assert warden.those_of(str(tmp_path)) == [left]
    finally:
        for pid in (left, searching):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_61_more_trials_than_configurations(make: Any, tmp_path: Path, fresh: World) -> None:
    test_continuing.test_a_finite_space_is_exhausted_and_repeats_are_not_trained(make, tmp_path)
    text = "parameters:\n  rank: {role: scientific, values: [2, 4]}\nfixed: {epochs: 2, encoder_epochs: 1}\n"
    (fresh.home / "tiny.yaml").write_text(text + "trials: 50\nseeds: 1\nlag: 2\n")
    fresh.good(*SEARCH)
    study = next(iter(read_ledger(fresh.run)[0].studies.values()))
    assert len([trial for trial in study.trials if trial.repeats is None]) <= 3


def test_62_readers_poll_while_a_search_writes(tmp_path: Path) -> None:
    """500 trials of two packs and 8 processes that ask; 10,000 trials by `python -m bench scale`."""
    plan = plan_of(tmp_path / "run", ONE_SHAPE, trials=500, sampler="random")
    client = Coordinator(plan)
    over = tmp_path / "over"
    readers = [forked(lambda n=n: _poll(plan.folder, over, tmp_path / f"told{n}")) for n in range(8)]  # type: ignore[misc]
    packs, objects = [FakePack(name, 4) for name in "ab"], dict[int, int]()
    commits = _timed(client)
    try:
        while not client.done:
            for pack in packs:
                pack.step(client)
            hundreds = len(client._records.studies["1"].trials) // 100
            if hundreds not in objects:
                objects[hundreds] = len(gc.get_objects())
            time.sleep(0.002)  # else the readers hardly get a turn on few cores
    finally:
        over.touch()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in readers]
    client.close()
    assert codes == [0] * 8
    told = [json.loads((tmp_path / f"told{n}").read_text()) for n in range(8)]
    assert [one["errors"] for one in told] == [[]] * 8
    assert min(len(one["took"]) for one in told) >= 5
    took = sorted(seconds for one in told for seconds in one["took"][1:])  # the first one imports
    assert took[int(0.99 * len(took))] < 0.015, "the whole ledger was read"
    assert sorted(commits)[int(0.99 * len(commits))] < patience(0.05)
    assert objects[4] - objects[1] < 5 * 300, "what has ended is kept"  # 1 a trial; 18 where its epochs stay
    assert sum(status(plan.folder)["trials"].values()) == 500


def _poll(folder: Path, over: Path, to: Path) -> None:
    """Ask until the file `over` is there. Seconds of a processor, since eight readers share few."""
    took, errors = list[float](), list[str]()
    while not over.exists():
        start = time.process_time()
        try:
            status(folder)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        took.append(time.process_time() - start)
        time.sleep(0.05)
    to.write_text(json.dumps({"took": took, "errors": errors}))


def _timed(client: Coordinator) -> list[float]:
    """How long its commits take, from now on."""
    found = Played()
    time_commits(client, found)
    return found.commits  # type: ignore[return-value]


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["epoch", "twice", "result", "failure", "lost", "join", "ask"]),
        st.integers(0, 4), st.integers(0, 3), st.integers(0, 6),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS, seed=st.integers(0, 1 << 20))
def test_63_words_in_any_order(tmp_path_factory: pytest.TempPathFactory, words: Any, seed: int) -> None:
    """Whatever packs say, what has ended stays as it ended, and the search can be finished to the same ledger."""
    folder = tmp_path_factory.mktemp("words")
    client = Coordinator(plan_of(folder / "run", ONE_SHAPE))
    rng, known, ended = random.Random(seed), [], {}
    for kind, lane, attempt, epoch in words:
        pack = rng.choice("ab")
        if kind == "join":
            client.join(pack, 2, "node", "cpu")
        elif kind == "lost":
            client.lost(pack, "gone")
        elif kind == "ask" or not known:
            known += client.advance(pack, [], [], [], 3).start
        else:
            order = _altered(known[lane % len(known)], attempt)
            one = [said(order, max(epoch, 1))] if isinstance(said_or_not(order, max(epoch, 1)), LaneEpoch) else []
            client.advance(
                pack,
                one * (2 if kind == "twice" else 1) if kind in ("epoch", "twice") else [],
                [LaneFailure(order.lane, order.attempt, epoch, Failure.CRASH, "?")] if kind == "failure" else [],
                [result(order, max(epoch, 1))] if kind == "result" else [],
                3,
            )
        for trial in client._records.studies["1"].trials:
            if trial.state is not State.RUNNING:
                assert ended.setdefault(trial.number, (trial.state, trial.digest)) == (trial.state, trial.digest)
    client.close()
    assert len(read_ledger(folder / "run", keep=True)[0].studies["1"].trials) >= len(ended)


def said_or_not(order: LaneOrder, epoch: int) -> Any:
    from tests.search.simulate import epoch_of

    return epoch_of(order, epoch)


def _altered(order: LaneOrder, attempt: int) -> LaneOrder:
    """The order, of another attempt, or of a trial that does not exist."""
    from dataclasses import replace

    lane = order.lane if attempt != 3 else LaneId("1", 10_000, 0)
    return replace(order, lane=lane, attempt=order.attempt + attempt % 3 - 1)


def test_63_late_double_unknown(make: Any) -> None:
    test_coordinator.test_late_double_unknown_and_early_words_are_refused_and_noted_once(make)


def test_63_the_ledger_refuses_a_second_end(tmp_path: Path) -> None:
    from tests.search import test_ledger

    test_ledger.test_the_ledger_refuses_a_second_end_too(tmp_path)
