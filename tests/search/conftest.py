"""No syncing of disks in these tests, but where it is what is tested: it takes most of the time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcutune.search import ledger
from mcutune.search.coordinator import Coordinator
from tests.search.simulate import plan_of
from tests.search.words import ALIKE, Clock


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "durable: syncs the disk as the product does")


@pytest.fixture(autouse=True)
def _no_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("durable") is None:
        monkeypatch.setattr(os, "fsync", lambda file: None)
        monkeypatch.setattr(os, "fdatasync", lambda file: None)
        monkeypatch.setattr(ledger, "SYNCHRONOUS", "OFF")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Coordinator]]:
    """Makes coordinators of one run, closed at the end."""
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path / "home"))
    made: list[Coordinator] = []

    def coordinator(text: str = ALIKE, clock: Any = None, **given: Any) -> Coordinator:
        plan = plan_of(tmp_path / "run", text, **given)
        found = Coordinator(plan, clock=clock or Clock(), lease=60.0)
        made.append(found)
        return found

    yield coordinator
    for found in made:
        found.close()
