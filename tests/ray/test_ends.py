"""How a search ends that is interrupted or killed: its exit code, how long it takes, what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.cluster.place import Place
from tests.ray.conftest import ROOT, patience

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


class Running:
    """tests.ray.searching in a session of its own, and what it printed."""

    def __init__(self, address: str, folder: Path, *, lanes: int, packs: int, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.ray.searching", address, str(folder), str(lanes), str(packs)]
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, start_new_session=True,
                env={**os.environ, **environment},
            )  # fmt: skip

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.process.wait()} {self.errors.read_text(encoding='utf-8')}"
        return json.loads(line)

    def until(self, **least: int) -> dict[str, Any]:
        """The first progress with at least this much of each (finished, epochs)."""
        while True:
            seen = self.line()
            if all(seen.get(key, -1) >= value for key, value in least.items()):
                return seen

    def rest(self) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout]

    def family(self) -> list[psutil.Process]:
        """It and all of its descendants."""
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


def all_end(processes: list[psutil.Process]) -> None:
    end = time.monotonic() + patience(15)
    while (left := living(processes)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


def living(processes: list[psutil.Process]) -> list[str]:
    names = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                names.append(" ".join(process.cmdline())[:80])
    return names


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    environment = {name: "" for name in ("RAY_ADDRESS",)}
    search = Running("local", tmp_path, lanes=5000, packs=1, **environment)
    yield search
    for process in search.family() if psutil.pid_exists(search.process.pid) else []:
        with contextlib.suppress(psutil.Error):
            process.kill()
    search.process.wait()


def ctrl_c_lets_the_packs_leave(running: Running) -> None:
    folder = Path(running.line()["folder"])
    running.until(finished=2)
    family = running.family()
    start = time.monotonic()
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: to every process in the foreground
    assert running.process.wait() == 6
    assert time.monotonic() - start < patience(10)
    last = running.rest()
    assert "stopped" in last[-1]["error"]
    assert last[-2]["stopped"] and not last[-2]["lost"]  # they left, they were not killed
    all_end(family)
    assert not folder.exists()
    assert running.errors.read_text(encoding="utf-8") == ""


def test_a_kill_leaves_nothing_running(running: Running) -> None:
    running.until(epochs=1)
    family = running.family()
    running.process.kill()
    running.process.wait()
    all_end(family)


def without_ray_the_search_ends_resumable(running: Running, victim: str) -> None:
    running.until(epochs=1)
    family = running.family()
    (head,) = [process for process in family if victim in process.cmdline()[0]]
    start = time.monotonic()
    head.kill()
    code = running.process.wait()
    took = time.monotonic() - start
    all_end(family)
    assert code == 6, running.errors.read_text(encoding="utf-8")[-2000:]
    assert took < patience(30)


def test_an_address_without_a_cluster_is_refused(place: Place, tmp_path: Path) -> None:
    search = Running("127.0.0.1:1", tmp_path, lanes=1, packs=1)
    rest = search.rest()
    assert search.process.wait() == 2
    assert "cannot be joined" in rest[-1]["error"]
