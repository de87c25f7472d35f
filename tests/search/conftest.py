"""No syncing of disks in these tests, but where it is what is tested: it takes most of the time."""

from __future__ import annotations

import os

import pytest

from mcutune.search import ledger


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "durable: syncs the disk as the product does")


@pytest.fixture(autouse=True)
def _no_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("durable") is None:
        monkeypatch.setattr(os, "fsync", lambda file: None)
        monkeypatch.setattr(os, "fdatasync", lambda file: None)
        monkeypatch.setattr(ledger, "SYNCHRONOUS", "OFF")
