"""Objectives against a calculation by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.domain.combination import combinations
from mcutune.domain.objective import MISSING_RATES, Objective, scalar
from mcutune.errors import BadInput

NAMES = ("audio", "text", "video")
ALL = tuple(range(7))
SCORES = [0.1, 0.5, 0.3, 0.6, 0.4, 0.7, 0.9]


def test_mean_worst_and_cvar() -> None:
    assert scalar(SCORES, ALL, NAMES, "mean", "ua") == pytest.approx(sum(SCORES) / 7)
    assert scalar(SCORES, ALL, NAMES, "worst", "ua") == 0.1
    assert scalar(SCORES, ALL, NAMES, {"cvar": 2 / 7}, "ua") == pytest.approx(0.2)
    assert scalar(SCORES, ALL, NAMES, "cvar(0.25)", "ua") == pytest.approx((0.1 + 0.75 * 0.3) / 1.75)
    assert scalar(SCORES, ALL, NAMES, {"cvar": 1.0}, "ua") == pytest.approx(sum(SCORES) / 7)
    assert scalar(SCORES, ALL, NAMES, {"cvar": 0.01}, "ua") == pytest.approx(0.1)


def test_a_metric_where_lower_is_better_is_turned_round() -> None:
    assert scalar(SCORES, ALL, NAMES, "worst", "mae") == -0.9
    assert scalar(SCORES, ALL, NAMES, "mean", "mae") == pytest.approx(-sum(SCORES) / 7)


def test_mix_takes_labels_in_any_order() -> None:
    mix = {"mix": {"text+audio": 1, "video": 3}}
    assert scalar(SCORES, ALL, NAMES, mix, "ua") == pytest.approx(0.25 * 0.6 + 0.75 * 0.3)
    with pytest.raises(BadInput, match="not measured"):
        scalar([0.1, 0.2], (0, 1), NAMES, mix, "ua")
    with pytest.raises(BadInput, match="not a modality"):
        scalar(SCORES, ALL, NAMES, {"mix": {"smell": 1}}, "ua")


def test_area_is_the_expected_score_under_random_missing() -> None:
    by_set = dict(zip((c.modalities() for c in combinations(3)), SCORES, strict=True))
    total = 0.0
    for rate in MISSING_RATES:
        expected = chance = 0.0
        for present in itertools.product([0, 1], repeat=3):
            here = tuple(m for m in range(3) if present[m])
            if here:
                p = np.prod([1 - rate if m else rate for m in present])
                chance, expected = chance + p, expected + p * by_set[here]
        total += expected / chance
    assert scalar(SCORES, ALL, NAMES, "area", "ua") == pytest.approx(total / len(MISSING_RATES))


@pytest.mark.parametrize(
    "bad", ["avg", {"cvar": 0}, {"cvar": 2}, "cvar(x)", {"mix": {}}, {"mix": {"a": -1}}, {"mix": {"a": 0}}, 3, None]
)
def test_objectives_that_do_not_exist(bad: Any) -> None:
    with pytest.raises(BadInput):
        Objective.parse(bad)


@given(st.sampled_from(["mean", "worst", "area", {"cvar": 0.3}, {"mix": {"audio": 0.2, "text+video": 2}}]))
@settings(deadline=None)
def test_json_round_trip(value: Any) -> None:
    parsed = Objective.parse(value)
    assert Objective.parse(parsed.to_json()) == parsed


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7))
@settings(deadline=None)
def test_worst_below_cvar_below_mean(scores: list[float]) -> None:
    worst, cvar, mean = (scalar(scores, ALL, NAMES, o, "ua") for o in ("worst", {"cvar": 0.4}, "mean"))
    assert worst <= cvar + 1e-12 and cvar <= mean + 1e-12
