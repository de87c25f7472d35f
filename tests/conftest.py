"""What several folders of tests share: one small Ray for the session, and tests on Ray after all others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcutune.cluster.connect import connect
from mcutune.cluster.place import Place


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray leaves threads in this process, and some other tests fork it."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """2 CPUs, this machine only, its own folder and token."""
    with connect("local", cpus=2) as open_place:
        yield open_place
