"""Section C: numbers that are none end a trial, never a search, and never win."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mcutune.domain.trial import Failure, LaneEpoch, LaneOrder, State
from mcutune.errors import Problems
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.training.config import configuration
from mcutune.training.optim import LaneOptimizer, Vectors
from tests.faults.conftest import SEARCH, World
from tests.robustness import test_suspicions
from tests.search import simulate, test_coordinator, test_same_ledger
from tests.search.simulate import Play, plan_of
from tests.search.words import ONE_SHAPE, orders_of, said

EXPLODING = """\
parameters:
  PARAMETER
fixed: {epochs: 3, encoder_epochs: 1, encoder_width: 16, optimizer: adamw, weight_decay: 1FIXED}
trials: 3
seeds: 2
lag: 1
sampler: grid
"""


def exploding(world: World, *, always: bool) -> None:
    """At a rate of 10, a decay of 1 makes every weight nine times as large a step."""
    rates, ranks = "learning_rate: {role: scientific, values: [10]}", "rank: {role: scientific, values: [1, 2]}"
    text = EXPLODING.replace("PARAMETER", ranks if always else rates)
    (world.home / "tiny.yaml").write_text(text.replace("FIXED", ", learning_rate: 10" if always else ""))


def trials(world: World) -> Any:
    return next(iter(read_ledger(world.run, keep=True)[0].studies.values())).trials


def test_26_a_loss_that_is_not_a_number(fresh: World) -> None:
    exploding(fresh, always=False)
    status = json.loads(fresh.good(*SEARCH, "--json"))
    assert status["trials"] == {"finished": 1, "pruned": 0, "failed": 1, "running": 0}
    good, bad = trials(fresh)
    assert bad.state is State.FAILED and bad.failure is Failure.NAN and status["best"][0]["trial"] == good.number
    assert {lane.attempt for lane in bad.lanes} == {1}, "it was tried again, which cannot help"
    assert not (fresh.run / "checkpoints" / "1" / str(bad.number)).exists()


@pytest.mark.parametrize("bad", [float("inf"), -float("inf")])
def test_27_an_infinite_metric(make: Any, bad: float) -> None:
    test_coordinator.test_what_is_not_finite_ends_the_trial(make, bad)


def stepped(gradients: list[list[float]], clip: float | None) -> torch.Tensor:
    """The parameters of lanes [P, 4] after one step from zero."""
    made = configuration({"gradient_clip": clip})
    lanes = LaneOptimizer([Vectors.start(torch.zeros(4)) for _ in gradients], [made] * len(gradients))
    lanes.gradient.copy_(torch.tensor(gradients))
    lanes.step()
    return lanes.flat.detach().clone()


def test_28_gradients_that_explode() -> None:
    """Finite, but their norm is not: clipping would make zeros of them, and the lane would stand still unnoticed."""
    calm, wild = [1.0, -2.0, 3.0, 4.0], [1e30, 1.0, 1.0, 1.0]
    alone, together = stepped([calm], 1.0), stepped([calm, wild], 1.0)
    assert torch.equal(alone[0], together[0]) and alone.isfinite().all()
    assert together[1].isnan().all(), "the loss that follows is not finite, which ends the lane (row 26)"
    assert stepped([[float("nan"), 1.0, 1.0, 1.0]], 1.0).isnan().any()


def test_29_one_combination_is_not_a_number(make: Any, tmp_path: Path) -> None:
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [replace(said(one, 1), scores=(0.5, float("nan"), 0.5))], [], [], 0)
    assert client._records.studies["1"].trials[0].failure is Failure.METRIC
    test_suspicions.test_a_cell_that_is_not_a_number_stops_the_report(tmp_path / "world")


def test_30_every_trial_fails(fresh: World) -> None:
    exploding(fresh, always=True)
    code, out, err = fresh.command(*SEARCH)
    assert code == 1 and "no trial of tiny-small finished" in err and "nan" in out.lower()
    assert json.loads(fresh.good("status", "tiny-small", "--json"))["best"] == []
    for command in (["robustness", "--ckpt"], ["compare"], ["export"], ["report"], ["diff", "tiny-small"]):
        assert "ended without a winner" in fresh.refused(1, *command, "tiny-small")  # one rule for all
    assert fresh.command(*SEARCH)[0] == 1, "the same command says the same"


def test_31_ties_go_to_the_lowest_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(order: LaneOrder, epoch: int) -> LaneEpoch:
        third = (1 / 3, 1 / 3, 1 / 3)
        return LaneEpoch(order.lane, order.attempt, epoch, (1.0, 1.0, 1.0), 0.5, third, third)

    monkeypatch.setattr(simulate, "epoch_of", constant)
    for packs in (1, 2):
        plan = plan_of(tmp_path / f"run{packs}", ONE_SHAPE)
        Play(plan, packs=packs, seed=packs).run()
        (best,) = json.loads((plan.folder / "best.json").read_text())["best"]
        assert best["trial"] == 0


@pytest.mark.parametrize(
    "scores", [(0.5,), (), ("0.5", "0.5", "0.5"), (None, 0.5, 0.5), {"los": 1}, None, "abc", (0.5, [0.5], 0.5)],
    ids=str,
)  # fmt: skip
def test_32_a_metric_that_is_missing_or_no_number(make: Any, scores: Any) -> None:
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [replace(said(one, 1), scores=scores)], [], [], 0)
    assert client._records.studies["1"].trials[0].failure is Failure.METRIC
    assert client.advance("a", [], [], [], 1).start, "the search goes on"


def test_33_another_order_of_completion(tmp_path: Path) -> None:
    expected = Play(plan_of(tmp_path / "reference")).run()
    for seed in range(3):
        play = Play(plan_of(tmp_path / f"run{seed}"), packs=3, capacity=2, seed=seed, lose=0.02)
        assert play.run() == expected
    test_same_ledger.test_the_reference_is_worth_comparing(tmp_path / "other")


def test_34_another_number_of_threads(make: Any) -> None:
    make(threads=1).close()
    with pytest.raises(Problems, match="machine.threads: 1 -> 2"):
        make(threads=2)
    client: Coordinator = make(threads=2, accept_change=True)
    assert any(event.kind == "accepted change" for event in client._records.events)
