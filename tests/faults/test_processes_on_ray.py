"""Section A on Ray: whatever process dies, the search goes on, or ends resumable and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.cluster.place import Place
from tests.ray import test_ends, test_search_on_ray
from tests.ray.conftest import ROOT, fake_job, packs, patience, workers_of
from tests.ray.test_ends import Running, all_end, running
from tests.ray.test_same_ledger_on_ray import Command, command, reference

__all__ = ["command", "reference", "running"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_03_a_worker_is_killed(place: Place, tmp_path: Path) -> None:
    test_search_on_ray.whatever_process_of_a_pack_dies_the_pack_goes_on(place, tmp_path)


@pytest.mark.parametrize("victim", ["gcs_server", "raylet", "ray::CoordinatorActor"])
def test_04_ray_is_killed(running: Running, victim: str) -> None:
    test_ends.without_ray_the_search_ends_resumable(running, victim)


def test_07_ctrl_c_lets_the_packs_leave(running: Running) -> None:
    test_ends.ctrl_c_lets_the_packs_leave(running)


def test_07_ctrl_c_twice_ends_at_once(running: Running) -> None:
    running.until(finished=2)
    family = running.family()
    for _ in range(2):
        os.kill(running.process.pid, signal.SIGINT)
        time.sleep(0.1)
    start = time.monotonic()
    assert running.process.wait(timeout=patience(20)) == 6
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
        assert process.wait(timeout=patience(20)) != 0
        all_end(family)
        left = {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert not left & set(ports)
    finally:
        with contextlib.suppress(psutil.Error):
            process.kill()
        process.wait()


@pytest.mark.long
def test_11_one_of_two_workers_dies(place: Place, tmp_path: Path) -> None:
    killed: list[int] = []

    def watch(progress: Any) -> None:
        if progress.finished > 2 and not killed:
            victim = workers_of("RayTrainWorker")[-1]
            killed.append(victim.pid)
            victim.kill()

    job = fake_job(tmp_path, "ranks", lanes=12, epochs=3)
    start = time.monotonic()
    progress = test_search_on_ray.fake_search(job, place, packs(1, workers=2, cpus=2), watch=watch)
    assert killed and progress.finished == 12 and len(progress.lost) == 1
    assert time.monotonic() - start < patience(120)


@pytest.mark.long
def test_12_calls_are_slow_and_lost(reference: dict[str, Any], command: Command) -> None:
    command.environment["RAY_testing_rpc_failure"] = "RequestWorkerLease=20:10:10"
    command.environment["RAY_testing_asio_delay_us"] = "NodeManagerService.grpc_server.RequestWorkerLease=1000:20000"
    assert command.complete("--packs", "1")["ledger_hash"] == reference["ledger_hash"]
