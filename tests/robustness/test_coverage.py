"""Intervals hold the truth about as often as they say, and equal models are seldom called different; bench/coverage.py
has the figures with many datasets."""

from __future__ import annotations

import pytest

from bench.coverage import WORLDS, coverage, false_alarms
from mcutune.robustness.statistics import Resampling

HOW = Resampling(resamples=2000)


@pytest.mark.parametrize("groups", [8, 12, 30])
@pytest.mark.parametrize("world", ["speakers", "high accuracy"])
def test_intervals_hold_the_truth(world: str, groups: int) -> None:
    for rate in coverage(WORLDS[world], groups, 300, False, HOW).values():
        assert 0.91 <= rate <= 0.98  # 0.95 ± 3 standard errors of 300 datasets


def test_equal_models_are_seldom_called_different() -> None:
    rates = false_alarms(WORLDS["speakers"], 10, 150, HOW, cells=3)
    assert max(rates.values()) <= 0.11  # 0.05 + 3.3 standard errors of 150 datasets
