"""Section A on Ray: whatever process dies, the search goes on, or ends resumable and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.cli.searching import Shape, packs_for
from mcutune.cluster.connect import capacity
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Request, plan
from mcutune.errors import NoResources
from tests.cluster.fake_search import fake_run_pack
from tests.ray import test_ends, test_search_on_ray
from tests.ray.conftest import ROOT, fake_job, packs, patience, workers_of
from tests.ray.test_ends import Running, all_end, running
from tests.ray.test_same_ledger_on_ray import Command, command, reference
from tests.search.simulate import plan_of

__all__ = ["command", "reference", "running"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_03_a_worker_is_killed(place: Place, tmp_path: Path) -> None:
    test_search_on_ray.whatever_process_of_a_pack_dies_the_pack_goes_on(place, tmp_path)


def test_06_packs_and_their_workers_share_the_last_cpus(place: Place, tmp_path: Path) -> None:
    """Two packs with a worker of one CPU each on a Ray of two CPUs: both are at work at once, nobody waits."""
    busy, start = [0], time.monotonic()

    def watch(progress: Any) -> None:
        busy.append(progress.lanes_busy)
        assert max(busy) or time.monotonic() - start < patience(60), "the packs hold what their workers wait for"

    job = fake_job(tmp_path, "last", lanes=12, epochs=4, together=2)
    progress = test_search_on_ray.fake_search(job, place, plan(Request(packs=2), capacity()), watch=watch)
    assert progress.finished == 12 and progress.lost == ()
    assert max(busy) == 4, "one waited for the other"
    with pytest.raises(NoResources, match="3 packs x 1 worker x 1 CPU = 3 CPUs are asked for, the place has 2 CPUs"):
        plan(Request(packs=3), capacity())


def test_10_a_gpu_where_ray_has_none(place: Place, tmp_path: Path) -> None:
    """As `mcutune search --gpus-per-pack 1` asks, before a pack is made; nothing stays pending."""
    shape = Shape(place="local", address=None, packs=None, lanes=None, cpus=1, workers=1, gpus=1.0)
    with pytest.raises(NoResources, match="1 GPU are asked for, the place has 2 CPUs and 0 GPUs") as refused:
        packs_for(plan_of(tmp_path / "run"), shape, place, capacity())
    assert refused.value.exit_code == 5


@pytest.mark.parametrize("victim", ["gcs_server", "raylet", "ray::CoordinatorActor"])
def test_04_ray_is_killed(running: Running, victim: str) -> None:
    test_ends.without_ray_the_search_ends_resumable(running, victim)


def test_07_ctrl_c_lets_the_packs_leave(running: Running) -> None:
    test_ends.ctrl_c_lets_the_packs_leave(running)


def test_07_sigterm_twice_ends_at_once(running: Running) -> None:
    running.until(finished=2)
    family = running.family()
    for _ in range(2):
        os.kill(running.process.pid, signal.SIGTERM)
        time.sleep(0.1)
    start = time.monotonic()
    assert running.process.wait() == 6
    assert time.monotonic() - start < patience(8)
    all_end(family)


def test_08_the_terminal_is_closed(tmp_path: Path) -> None:
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ray.searching", "local", str(tmp_path), "5000", "1"],
        stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, preexec_fn=own_terminal,
        env={**os.environ, "RAY_ADDRESS": ""},
    )  # fmt: skip
    os.close(slave)
    try:
        seen = b""
        while b'"finished": 2' not in seen:
            seen = (seen + os.read(master, 65536))[-65536:]
        me = psutil.Process(process.pid)
        family = [me, *me.children(recursive=True)]
        ports = [c.laddr.port for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert ports
        os.close(master)
        assert process.wait() != 0
        all_end(family)
        left = {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert not left & set(ports)
    finally:
        with contextlib.suppress(psutil.Error):
            process.kill()
        process.wait()


@pytest.mark.long
def test_11_one_of_two_workers_dies(place: Place, tmp_path: Path) -> None:
    killed: list[psutil.Process] = []

    def watch(progress: Any) -> None:
        workers = workers_of("RayTrainWorker")
        if progress.finished > 2 and not killed and len(workers) == 2:
            killed.append(workers[-1])
            workers[-1].kill()

    job = fake_job(tmp_path, "ranks", lanes=12, epochs=3)
    start = time.monotonic()
    progress = test_search_on_ray.fake_search(job, place, packs(1, workers=2, cpus=2), watch=watch)
    assert killed and progress.finished == 12 and len(progress.lost) == 1
    assert time.monotonic() - start < patience(120)


class _Sleeper:
    """The coordinator's client on a worker that meets the others before every word; the last one never comes.

    `how`: it sleeps, or it is stopped as a whole, so that it does not answer Ray either.
    """

    def __init__(self, client: Any, first: bool, how: str) -> None:
        self._client, self._first, self._how, self._words = client, first, how, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def advance(self, *words: Any) -> Any:
        from torch.distributed import barrier, get_rank, get_world_size

        self._words += 1
        if self._first and self._words == 5 and get_rank() == get_world_size() - 1:
            if self._how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(3600)
        barrier()  # as the sum of the gradients does
        return self._client.advance(*words)


def _pack_with_a_sleeper(how: str) -> Callable[[dict[str, Any]], None]:
    def run(client: Any, *, pack: str, **given: Any) -> None:
        fake_run_pack(_Sleeper(client, pack.endswith("-1"), how), pack=pack, seconds=0.2, **given)  # type: ignore[arg-type]

    def loop(config: dict[str, Any]) -> None:
        from mcutune.training.worker import train_pack

        train_pack(config, run=run)

    return loop


@pytest.mark.long
@pytest.mark.parametrize("how", ["asleep", "stopped"])
def test_11_one_of_two_workers_hangs(place: Place, tmp_path: Path, how: str) -> None:
    """The other one's wait ends after a minute, both are ended, and their lanes start again."""
    job = fake_job(tmp_path, how, lanes=12, epochs=3, loop=_pack_with_a_sleeper(how))
    start = time.monotonic()
    progress = test_search_on_ray.fake_search(job, place, packs(1, workers=2, cpus=2))
    took = time.monotonic() - start
    assert progress.finished == 12 and len(progress.lost) == 1
    assert 60 < took < patience(180)


@pytest.mark.long
def test_11_the_only_worker_of_the_only_pack_is_stopped(place: Place, tmp_path: Path) -> None:
    """Nobody waits for it but Ray Train, which gives it up after three minutes."""
    job = fake_job(tmp_path, "alone", lanes=12, epochs=3, loop=_pack_with_a_sleeper("stopped"))
    start = time.monotonic()
    progress = test_search_on_ray.fake_search(job, place, packs(1))
    took = time.monotonic() - start
    assert progress.finished == 12 and len(progress.lost) == 1
    assert 180 < took < patience(270)


_MANY = {"num_failures": -1, "req_failure_prob": 10, "resp_failure_prob": 10, "in_flight_failure_prob": 0,
         "num_lower_bound_req_failures": 1, "num_lower_bound_resp_failures": 1}  # fmt: skip
LOST = (
    "NodeManagerService.grpc_client.ReturnWorkerLease",
    "CoreWorkerService.grpc_client.GetObjectStatus",
    "ray::rpc::ActorInfoGcsService.grpc_client.CreateActor",
    "ray::rpc::ActorInfoGcsService.grpc_client.GetActorInfo",
    "ray::rpc::InternalKVGcsService.grpc_client.InternalKVGet",
    "ray::rpc::InternalKVGcsService.grpc_client.InternalKVPut",
)
LATE = "NodeManagerService.grpc_server.RequestWorkerLease=1000:500000,CoreWorkerService.grpc_server.PushTask=0:20000"


@pytest.mark.long
def test_12_calls_are_slow_and_lost(reference: dict[str, Any], command: Command) -> None:
    """Of some calls one in five, and the first two of each process; others are late. Ray's own logs say so."""
    command.environment["RAY_testing_rpc_failure"] = json.dumps(dict.fromkeys(LOST, _MANY))
    command.environment["RAY_testing_asio_delay_us"] = LATE
    process, told = command.start("--packs", "1"), set[str]()
    while process.poll() is None:
        told |= _told(process.pid)
        time.sleep(0.5)
    assert command.end(process)["ledger_hash"] == reference["ledger_hash"]
    assert told == {"raylet.out", "raylet.err", "gcs_server.out", "gcs_server.err"}


def _told(driver: int) -> set[str]:
    """Logs of a driver's Ray that speak of losses (out) and delays (err)."""
    found = set()
    with contextlib.suppress(psutil.Error, OSError):
        for process in psutil.Process(driver).children(recursive=True):
            for option in process.cmdline():
                folder = Path(option.partition("session_dir=")[2], "logs")
                for path in (*folder.glob("raylet.*"), *folder.glob("gcs_server.*")):
                    text = path.read_text(encoding="utf-8", errors="replace")
                    if (
                        "Setting RpcFailureManager seed" in text
                        or f"RAY_testing_asio_delay_us is set to {LATE}" in text
                    ):
                        found.add(path.name)
    return found
