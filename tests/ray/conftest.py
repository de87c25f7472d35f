"""What tests on Ray share besides the session's Ray (tests/conftest.py)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.cluster.resources import Capacity, Node, Plan, Request, plan
from mcutune.search.runner import Job
from tests.cluster.fake_search import FakeCoordinator, fake_run_pack

ROOT = Path(__file__).parents[2]


def packs(count: int, **request: Any) -> Plan:
    return plan(Request(packs=count, **request), Capacity((Node(2),)))


def fake_loop(config: dict[str, Any]) -> None:
    """The Train loop of a pack without a model, through the real worker."""
    from mcutune.training.worker import train_pack

    train_pack(config, run=partial(fake_run_pack, seconds=0.2))


def fake_job(folder: Path, name: str, *, loop: Callable[[dict[str, Any]], None] = fake_loop, **options: Any) -> Job:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    make = partial(FakeCoordinator, **options)
    return Job(name, make, home, capacity=2, logs=folder / "logs", loop=loop, brief_lives=9)


def workers_of(title: str, root: int | None = None) -> list[psutil.Process]:
    """Ray's processes with this title (`ray::RayTrainWorker`) below a process, this one by default."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and " ".join(process.cmdline()).startswith(f"ray::{title}"):
                found.append(process)
    return found


def patience(seconds: float) -> float:
    """The seconds that something may take here, where it takes that long on a machine that does nothing else."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(check: Callable[[], Any], seconds: float = 60.0, what: str = "it") -> Any:
    """The first true answer of `check`, or a failure of the test."""
    end = time.monotonic() + patience(seconds)
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen in {seconds:g} s")
