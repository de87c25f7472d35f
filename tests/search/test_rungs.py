"""Pruning does not depend on who arrives first, and a rung that lies is not believed."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.domain.trial import LaneEpoch, LaneOrder, State
from mcutune.search.ledger import read_ledger
from mcutune.search.records import TrialRecord
from mcutune.search.rungs import PEERS, Absent, Decision, decide, eta_of, rank_correlation, scouted, widened
from mcutune.search.space import Rungs
from tests.reference import rungs_twin
from tests.search import simulate
from tests.search.simulate import Play, plan_of

RUNGS = 3
curve_lists = st.lists(
    st.lists(st.none() | st.integers(0, 6).map(float), min_size=RUNGS + 1, max_size=RUNGS + 1), min_size=1, max_size=45
)


whole_curves = st.lists(st.integers(0, 6).map(float), min_size=RUNGS + 1, max_size=RUNGS + 1)


class AnyOrder:
    """Trials take their steps in a random order, as packs would deliver them; parked trials ask again."""

    def __init__(self, curves: list[list[float | None]], rungs: Rungs, lag: int) -> None:
        self.curves, self.rungs, self.lag = curves, rungs, lag
        self.trials = [TrialRecord(number, {}) for number in range(len(curves))]
        self.passed = [0] * len(curves)

    def play(self, seed: int) -> list[int]:
        rng = random.Random(seed)
        while running := [trial.number for trial in self.trials if trial.state is State.RUNNING]:
            self._step(rng.choice(running))
        return self.passed

    def _step(self, number: int) -> None:
        trial, rung = self.trials[number], self.passed[number]
        score = self.curves[number][rung]
        if score is None:
            trial.state = State.FAILED
        elif rung == RUNGS:
            trial.state, trial.score = State.FINISHED, score
        else:
            trial.reached[rung] = score
            decision = self._decision(number, rung)
            self.passed[number] += decision is Decision.GO_ON
            if decision is Decision.PRUNE:
                trial.state = State.PRUNED

    def _decision(self, number: int, rung: int) -> Decision:
        eta = eta_of(number, self.rungs, self.lag, rung, self.trials)
        if eta is None:
            return Decision.WAIT
        return Decision.GO_ON if eta == 1 else decide(number, eta, partial(self._known, rung))

    def _known(self, rung: int, number: int) -> float | Absent:
        trial = self.trials[number]
        return trial.reached.get(rung, Absent.NOT_YET if trial.state is State.RUNNING else Absent.NEVER)


@given(
    st.lists(whole_curves, max_size=12), curve_lists, st.integers(2, 4), st.sampled_from([0, 4, 8]),
    st.integers(0, 5), st.integers(0, 10**6),
)  # fmt: skip
@settings(deadline=None)
def test_any_order_of_arrival_gives_the_same_decisions(
    first: list[list[float | None]], rest: list[list[float | None]], eta: int, scouts: int, lag: int, seed: int
) -> None:
    curves = first + rest
    expected = rungs_twin.search(curves, RUNGS, eta, scouts, lag)
    assert AnyOrder(curves, Rungs(1, eta, scouts), lag).play(seed) == expected


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


@given(st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=30))
@settings(deadline=None)
def test_the_rank_correlation_is_that_of_its_definition(pairs: list[tuple[float, float]]) -> None:
    assert rank_correlation(tuple(pairs)) == pytest.approx(rungs_twin.spearman(pairs), abs=1e-8)


@pytest.mark.parametrize(
    ("eta", "correlation", "expected"),
    [(3, None, 3), (3, 0.6, 3), (3, 0.59, 2), (2, 0.59, 2), (4, 0.3, 2), (3, 0.29, 1), (3, -0.9, 1)],
)
def test_the_lower_the_correlation_the_more_go_on(eta: int, correlation: float | None, expected: int) -> None:
    assert widened(eta, correlation) == expected


def test_only_scouts_that_were_trained_to_their_end_are_measured() -> None:
    trials = [TrialRecord(k, {}, state=State.FINISHED, score=float(k), reached={3: float(-k)}) for k in range(9)]
    trials[2].state, trials[3].repeats, trials[4].reached = State.FAILED, 1, {}
    assert scouted(trials, 8, 3) == tuple((float(-k), float(k)) for k in (0, 1, 5, 6, 7))


def test_who_knows_the_ends_of_the_scouts_waits_for_them() -> None:
    trials = [TrialRecord(k, {}, state=State.FINISHED, score=float(k), reached={3: float(-k)}) for k in range(4)]
    rungs = Rungs(3, 3, scouts=4)
    assert [eta_of(k, rungs, 2, 3, trials) for k in range(7)] == [1, 1, 1, 1, 3, 3, 1]
    trials[1].state = State.RUNNING
    assert [eta_of(k, rungs, 2, 3, trials) for k in (3, 5, 6)] == [1, 3, None]


LYING = """\
parameters: {beta: {role: scientific, low: 1e-6, high: 1, log: true}}
fixed: {epochs: 9}
trials: 40
lag: 4
sampler: random
"""


def lying(order: LaneOrder, epoch: int, combinations: int = 3) -> LaneEpoch:
    """The better a configuration is in the end, the worse it looks before the last epochs."""
    quality = simulate.units(order.configuration["beta"])
    score = quality if epoch > 8 else 0.1 * (1 - quality) + 0.001 * epoch
    third = (1 / 3,) * 3
    return LaneEpoch(order.lane, order.attempt, epoch, (score,) * 3, 1.0, third, third)


def test_a_rung_that_lies_is_not_believed_where_scouts_have_seen_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "epoch_of", lying)

    def winner(name: str, rungs: str, **how: Any) -> tuple[float, int, str]:
        plan = plan_of(tmp_path / name, LYING + f"rungs: {rungs}\n")
        hash_ = Play(plan, **how).run()
        study = read_ledger(plan.folder)[0].studies["1"]
        assert study.best is not None and study.best.score is not None
        return study.best.score, study.counts["pruned"], hash_

    honest, believed = winner("none", "none"), winner("believed", "{first: 3, eta: 3}", capacity=8)
    seen = winner("seen", "{first: 3, eta: 3, scouts: 8}", capacity=8)
    assert believed[1] > 20 and believed[0] < honest[0] and seen[0] == honest[0] and seen[1] <= 4
    again = winner("again", "{first: 3, eta: 3, scouts: 8}", packs=2, capacity=3, seed=5, kill=0.05, lose=0.02)
    assert again == seen
