"""Each group of the engine's benches runs from end to end on small data."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.long
@pytest.mark.parametrize("group", ["throughput", "evaluation", "rate", "modalities", "robustness", "gpu"])
def test_it_gives_rows(group):
    rows = importlib.import_module(f"bench.{group}").measure(quick=True)
    assert rows and all(row.group == group and row.unit for row in rows)
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.value is not None and row.value >= 0 for row in rows)
