"""Pruning does not depend on who arrives first."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.search.rungs import PEERS, Absent, Decision, decide
from tests.reference import rungs_twin

curve_lists = st.lists(
    st.lists(st.none() | st.integers(0, 6).map(float), min_size=3, max_size=3), min_size=1, max_size=45
)


def in_any_order(curves: list[list[float | None]], eta: int, seed: int) -> list[int]:
    """Trials take their steps in a random order, as packs would deliver them; parked trials ask again."""
    rng = random.Random(seed)
    at: list[dict[int, float]] = [{} for _ in range(3)]
    passed = [0] * len(curves)
    running = set(range(len(curves)))

    def known(rung: int, j: int) -> float | Absent:
        if j in at[rung]:
            return at[rung][j]
        return Absent.NOT_YET if j in running else Absent.NEVER

    while running:
        number = rng.choice(sorted(running))
        rung = passed[number]
        score = curves[number][rung]
        if score is None:
            running.discard(number)
            continue
        at[rung][number] = score
        decision = decide(number, eta, lambda j, rung=rung: known(rung, j))  # type: ignore[misc]
        if decision is Decision.WAIT:
            continue
        passed[number] += decision is Decision.GO_ON
        if decision is Decision.PRUNE or passed[number] == 3:
            running.discard(number)
    return passed


@given(curve_lists, st.integers(2, 4), st.integers(0, 10**6))
@settings(deadline=None)
def test_any_order_of_arrival_gives_the_same_decisions(curves: list[list[float | None]], eta: int, seed: int) -> None:
    assert in_any_order(curves, eta, seed) == rungs_twin.search(curves, 3, eta)


def test_trial_0_always_goes_on() -> None:
    assert decide(0, 3, lambda _: 0.0) is Decision.GO_ON


@pytest.mark.parametrize(("mine", "decision"), [(1.0, Decision.PRUNE), (1.1, Decision.GO_ON)])
def test_a_tie_goes_to_the_lower_number(mine: float, decision: Decision) -> None:
    scores = [1.0, 0.5, mine]
    assert decide(2, 3, lambda j: scores[j]) is decision


def test_few_peers_let_a_trial_go_on() -> None:
    assert decide(1, 3, lambda j: 1.0 - j) is Decision.GO_ON


def test_only_the_nearest_peers_matter_and_none_is_waited_for_beyond_them() -> None:
    scores: list[float | Absent] = [Absent.NOT_YET] * 3 + [0.0] * PEERS + [1.0]
    assert decide(len(scores) - 1, 3, lambda j: scores[j]) is Decision.GO_ON
    scores[4] = Absent.NEVER
    assert decide(len(scores) - 1, 3, lambda j: scores[j]) is Decision.WAIT
