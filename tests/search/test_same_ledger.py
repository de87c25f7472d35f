"""The promise of the product: the same ledger with any packs, in any order, after any kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcutune.domain.trial import Failure, LaneOrder
from mcutune.search import proposals
from mcutune.search.canonical import canonical_trial, ledger_hash, trial_digest
from mcutune.search.ledger import read_ledger
from tests.search.simulate import SPACE, Play, plan_of


@pytest.fixture(scope="module", autouse=True)
def _guided_early() -> Iterator[None]:
    """These searches are short: the sampler's model guides from the third result on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "STARTUP", 3)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One pack, one lane at a time, no accident."""
    return Play(plan_of(tmp_path_factory.mktemp("reference") / "run"), capacity=1).run()


@given(
    packs=st.integers(1, 3),
    capacity=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    kill=st.sampled_from([0.0, 0.02, 0.1]),
    lose=st.sampled_from([0.0, 0.03]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packs_order_losses_and_kills_do_not_show(
    tmp_path_factory: pytest.TempPathFactory,
    reference: str,
    packs: int,
    capacity: int,
    seed: int,
    kill: float,
    lose: float,
) -> None:
    folder = tmp_path_factory.mktemp("play") / "run"
    assert Play(plan_of(folder), packs, capacity, seed, kill, lose).run() == reference


@given(
    packs=st.integers(1, 3), capacity=st.integers(1, 5), seed=st.integers(0, 10**6), kill=st.sampled_from([0.0, 0.03])
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_lane_that_kills_its_pack_fails_alone(
    tmp_path_factory: pytest.TempPathFactory, packs: int, capacity: int, seed: int, kill: float
) -> None:
    def deadly(order: LaneOrder, epoch: int) -> bool:
        return (order.lane.trial, order.lane.seed, epoch) in ((1, 0, 1), (5, 1, 1))

    plain = Play(plan_of(tmp_path_factory.mktemp("alone") / "run"), capacity=1, deadly=deadly).run()
    plan = plan_of(tmp_path_factory.mktemp("play") / "run")
    assert Play(plan, packs, capacity, seed, kill, deadly=deadly).run(limit=6_000) == plain
    trials = read_ledger(plan.folder)[0].studies["1"].trials
    assert [trial.number for trial in trials if trial.failure is Failure.LOST] == [1, 5]


def test_the_reference_is_worth_comparing(tmp_path: Path) -> None:
    """Every kind of end occurs in it, and trials were guided by results.

    Which trials those are hangs on the last bits of the sampler's floats, so on the CPU: more trials than it needs.
    """
    plan = plan_of(tmp_path / "run", trials=60)
    Play(plan, capacity=2).run()
    records, _ = read_ledger(plan.folder)
    counts = records.studies["1"].counts
    assert counts["finished"] and counts["pruned"] and counts["failed"] and not counts["running"]
    unguided = proposals._sobol_point(plan.space, 0, 13)
    assert records.studies["1"].trials[13].settings != unguided
    assert sum(counts.values()) == plan.space.trials


def test_digests_can_be_rebuilt_from_the_rows(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run")
    expected = Play(plan, packs=2).run()
    records, _ = read_ledger(plan.folder, keep=True)
    for trial in records.studies["1"].trials:
        assert trial_digest(trial, trial.state, trial.score) == trial.digest
        assert canonical_trial(trial, trial.state, trial.score)["number"] == trial.number
    assert ledger_hash(records) == expected


def test_folds_are_independent_studies(tmp_path: Path) -> None:
    both = plan_of(tmp_path / "both", folds=("1", "2"), trials=6)
    Play(both, packs=2, seed=1).run()
    records, _ = read_ledger(both.folder)
    alone = plan_of(tmp_path / "alone", folds=("2",), trials=6)
    Play(alone).run()
    single, _ = read_ledger(alone.folder)
    digests = [[trial.digest for trial in r.studies["2"].trials] for r in (records, single)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("sampler", ["random", "qmc", "cmaes"])
def test_other_samplers_too(tmp_path: Path, sampler: str) -> None:
    hashes = {
        Play(plan_of(tmp_path / f"run{packs}", sampler=sampler, trials=8), packs, seed=packs, kill=0.03).run()
        for packs in (1, 2)
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_with_scouts(tmp_path: Path, sampler: str) -> None:
    text = SPACE.replace("rungs: {first: 1, eta: 2}", "rungs: {first: 1, eta: 2, scouts: 4}")
    hashes = {
        Play(plan_of(tmp_path / f"run{i}", text, sampler=sampler, lag=1), packs, capacity, i, kill).run()
        for i, (packs, capacity, kill) in enumerate([(1, 1, 0.0), (2, 4, 0.0), (3, 2, 0.05)])
    }
    assert len(hashes) == 1


def test_without_rungs(tmp_path: Path) -> None:
    """Lanes of a trial are then far apart when one of them fails."""
    text = SPACE.replace("rungs: {first: 1, eta: 2}", "rungs: none")
    shapes = [(1, 5, 0.0), (2, 1, 0.0), (3, 1, 0.0), (2, 2, 0.05)]
    plays = [
        Play(plan_of(tmp_path / f"run{i}", text), packs, capacity, i, kill)
        for i, (packs, capacity, kill) in enumerate(shapes)
    ]
    assert len({play.run() for play in plays}) == 1
    studies = [read_ledger(play.plan.folder, keep=True)[0].studies["1"] for play in plays]
    failed = [[[len(lane.epochs) for lane in t.lanes] for t in study.trials if t.failure] for study in studies]
    assert any(other != failed[0] for other in failed[1:])  # or it shows nothing
