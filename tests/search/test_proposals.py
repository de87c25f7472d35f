"""Proposals: pure, the same from a kept study as from a rebuilt one, and never outside the space."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.trial import State
from mcutune.search import proposals
from mcutune.search.proposals import Proposals, Result, looks_back, proposal, visible
from mcutune.search.space import Space
from mcutune.search.space_file import load_space

MIXED = """\
parameters:
  rank: {role: scientific, low: 1, high: 16, log: true}
  beta: {role: scientific, low: 1e-6, high: 1, log: true}
  dropout: {role: nuisance, low: 0, high: 0.75, step: 0.25}
  sensitivity: {role: nuisance, values: [0, 0.01, 0.1]}
  freeze_after: {role: nuisance, values: [null, 3, 6]}
  fusion: {role: nuisance, values: [adaptive, sum]}
trials: 64
"""
FINITE = """\
parameters:
  rank: {role: scientific, values: [1, 2, 4, 8]}
  dropout: {role: nuisance, low: 0, high: 0.5, step: 0.25}
trials: 64
lag: 3
"""
SAMPLERS = ["tpe", "gp", "cmaes", "qmc", "random"]


def make(tmp_path: Path, text: str, **given: Any) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load_space(str(path), **given)


def goodness(values: dict[str, Any]) -> float:
    return -abs(values.get("rank", 4) - 5) - abs(values.get("dropout", 0.0) - 0.3)


def play(space: Space, trials: int, seed: int = 0) -> list[Result]:
    """A history in which every kind of result occurs."""
    source = Proposals(space, seed)
    history = [Result(0, {p.name: getattr(space.default, p.name) for p in space.parameters}, State.FINISHED, -9.0)]
    for k in range(1, trials):
        values = source.propose(k, history)
        assert values is not None
        score = goodness(values)
        if k % 7 == 3:
            history.append(Result(k, values, State.FAILED))
        elif k % 3 == 0:
            history.append(Result(k, values, State.PRUNED, rungs=((3, score - 1),)))
        else:
            history.append(Result(k, values, State.FINISHED, score, ((3, score - 1), (9, score))))
    return history


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_looks_at_no_results_is_the_same_without_any(tmp_path: Path, sampler: str) -> None:
    space = make(tmp_path, MIXED, sampler=sampler, lag=5)
    last = 18 if sampler == "gp" else 40
    history = play(space, last)
    blind = [k for k in range(1, last) if not looks_back(space, k)]
    assert blind == list(range(1, last if sampler in ("qmc", "random") else 5 + proposals.STARTUP))
    for k in blind:
        assert proposal(space, 0, k, []) == proposal(space, 0, k, history)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_kept_study_gives_what_a_rebuilt_one_gives(tmp_path: Path, sampler: str) -> None:
    space = make(tmp_path, MIXED, sampler=sampler, lag=5)
    history = play(space, 25 if sampler == "gp" else 60)
    kept = Proposals(space, 7)
    for k in range(21, len(history), 4):
        shuffled = random.Random(k).sample(history, len(history))
        assert kept.propose(k, history[:k]) == proposal(space, 7, k, shuffled), k


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_at_or_above_k_minus_lag_is_looked_at(tmp_path: Path, sampler: str) -> None:
    space = make(tmp_path, MIXED, sampler=sampler, lag=5)
    history = play(space, 25)
    changed = [r if r.number < 20 else Result(r.number, r.values, State.FINISHED, 1e9) for r in history]
    assert proposal(space, 7, 25, history) == proposal(space, 7, 25, changed) == proposal(space, 7, 25, history[:20])
    if sampler in ("tpe", "gp", "cmaes"):  # and what is below matters
        below = [r if r.number < 5 else Result(r.number, r.values, State.FINISHED, 1e3) for r in history]
        assert proposal(space, 7, 25, below) != proposal(space, 7, 25, history)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_every_proposal_lies_in_the_space_and_is_a_configuration(tmp_path: Path, sampler: str) -> None:
    space = make(tmp_path, FINITE if sampler == "grid" else MIXED, sampler=sampler)
    history = play(space, {"grid": 12, "gp": 20}.get(sampler, 30))
    for result in history[1:]:
        assert all(p.contains(result.values[p.name]) for p in space.parameters)
        space.configuration(result.values)


def test_seed_and_number_decide(tmp_path: Path) -> None:
    space = make(tmp_path, MIXED, sampler="random")
    found = [proposal(space, seed, k, []) for seed, k in itertools.product((0, 1), (1, 2, 3))]
    assert len({str(values) for values in found}) == 6


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_the_same_in_another_process(tmp_path: Path, sampler: str) -> None:
    """String hashing differs between processes; proposals must not."""
    space = make(tmp_path, MIXED, sampler=sampler)
    program = (
        "import sys; sys.path.insert(0, sys.argv[3]); from test_proposals import *; "
        "s = load_space(sys.argv[1], sampler=sys.argv[2]); "
        "print(proposal(s, 3, 38, play(s, 20)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "space.yaml"), sampler, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(proposal(space, 3, 38, play(space, 20)))


@pytest.mark.parametrize("end", [0.0, 1 - 2**-53])
def test_extreme_values_survive_the_way_to_optuna_and_back(tmp_path: Path, end: float) -> None:
    space = make(tmp_path, MIXED)
    distributions = proposals._distributions(space.parameters)
    values = {p.name: p.at(end) for p in space.parameters}
    assert {p.name: proposals._external(p, proposals._internal(p, values[p.name])) for p in space.parameters} == values
    frozen = proposals._frozen(space, Result(1, values, State.FINISHED, 0.5), distributions)
    assert frozen is not None and frozen.value == 0.5
    for p in space.parameters:
        outside = proposals._internal(p, p.at(0.0))
        assert distributions[p.name]._contains(distributions[p.name].to_internal_repr(outside))
    whole = distributions["rank"]
    assert (whole.low, whole.high) == (1, 16)  # type: ignore[attr-defined]  # both ends included


def test_every_rank_can_be_proposed(tmp_path: Path) -> None:
    text = "parameters:\n  rank: {role: scientific, low: 1, high: 4}\ntrials: 9\nsampler: random\n"
    space = make(tmp_path, text)
    seen = {(proposal(space, 0, k, []) or {})["rank"] for k in range(1, 60)}
    assert seen == {1, 2, 3, 4}


def test_a_pruned_trial_is_told_with_what_it_reached_and_never_as_final(tmp_path: Path) -> None:
    import optuna

    space = make(tmp_path, MIXED)
    history = play(space, 20)
    told = {r.number: proposals._frozen(space, r, proposals._distributions(space.parameters)) for r in history}
    for result in history[1:]:
        trial = told[result.number]
        assert trial is not None
        if result.state is State.PRUNED:
            assert trial.state is optuna.trial.TrialState.PRUNED
            assert trial.intermediate_values == dict(result.rungs)
        if result.state is State.FAILED:
            assert trial.state is optuna.trial.TrialState.FAIL and trial.value is None


def test_a_default_outside_the_space_is_not_told(tmp_path: Path) -> None:
    space = make(tmp_path, MIXED.replace("low: 1, high: 16", "low: 8, high: 16"))
    default = Result(0, {p.name: getattr(space.default, p.name) for p in space.parameters}, State.FINISHED, 1.0)
    assert proposals._frozen(space, default, proposals._distributions(space.parameters)) is None


def test_a_grid_is_gone_through_once_and_then_exhausted(tmp_path: Path) -> None:
    space = make(tmp_path, FINITE, sampler="grid")
    found = [proposal(space, 0, k, []) for k in range(1, 14)]
    assert len({str(values) for values in found[:12]}) == 12 and found[12] is None


def test_listed_configurations_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- {rank: 2}\n- {rank: 8, beta: 0.5}\n")
    space = make(tmp_path, "configurations: list.yaml\n")
    assert [proposal(space, 0, k, []) for k in (1, 2, 3)] == [{"rank": 2}, {"rank": 8, "beta": 0.5}, None]


def test_the_window_moves_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "WINDOW", 10)
    monkeypatch.setattr(proposals, "BLOCK", 4)
    results = [Result(n, {}, State.FAILED) for n in range(40)]
    for below in range(1, 40):
        numbers = [r.number for r in visible(results, below)]
        assert numbers[-1] == below - 1 and numbers[0] % 4 == 0
        assert min(below, 10) <= len(numbers) <= 14


def test_a_kept_study_follows_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "WINDOW", 16)
    monkeypatch.setattr(proposals, "BLOCK", 8)
    space = make(tmp_path, MIXED, lag=2)
    history = play(space, 60)
    kept = Proposals(space, 0)
    for k in range(15, 60):
        assert kept.propose(k, history) == proposal(space, 0, k, history)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_guidance_helps(tmp_path: Path, sampler: str) -> None:
    """Not how good Optuna is, but that results reach the sampler with the right sign."""
    space = make(tmp_path, MIXED, sampler=sampler, lag=2)
    scores = [goodness(r.values) for r in play(space, 40)[1:]]
    assert sum(scores[-15:]) / 15 > sum(scores[:10]) / 10
