"""What a trial costs does not grow with the trials before it: work is counted, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

from mcutune.search import commits, proposals
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from tests.search.simulate import FakePack

SPACE = """\
parameters:
  beta: {role: scientific, low: 1e-6, high: 1, log: true}
  rank: {role: nuisance, values: [1, 2, 4, 8]}
  encoder_width: {role: nuisance, values: [64]}
fixed: {epochs: 3}
trials: 1700
lag: 4
"""


class Counted:
    """Counts the calls of functions, ours and others', and the statements of SQL while it is entered."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._connection = coordinator._ledger._connection
        self.calls = 0
        self.statements = 0

    def __enter__(self) -> Counted:
        self._connection.set_trace_callback(self._statement)
        sys.setprofile(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._connection.set_trace_callback(None)

    def _call(self, frame: Any, event: str, argument: Any) -> None:
        self.calls += event in ("call", "c_call")

    def _statement(self, statement: str) -> None:
        self.statements += 1


def ended(coordinator: Coordinator) -> int:
    counts: Counter[str] = Counter(coordinator._records.studies["1"].counts)
    return counts.total() - counts["running"]


def until(coordinator: Coordinator, pack: FakePack, trials: int) -> int:
    """Play until so many trials have ended; how many have."""
    while ended(coordinator) < trials and not coordinator.done:
        pack.step(coordinator)
    return ended(coordinator)


def work(coordinator: Coordinator, pack: FakePack, first: int, trials: int = 100) -> tuple[float, float]:
    """Calls and statements a trial, of so many trials from `first` on."""
    before = until(coordinator, pack, first)
    with Counted(coordinator) as counted:
        after = until(coordinator, pack, before + trials)
    return counted.calls / (after - before), counted.statements / (after - before)


@pytest.mark.parametrize("rungs", ["none", "{first: 1, eta: 3}"])
def test_a_late_trial_costs_what_an_early_one_does(make: Any, rungs: str) -> None:
    coordinator, pack = make(f"{SPACE}sampler: random\nrungs: {rungs}\n"), FakePack("a", 4)
    early, late = (work(coordinator, pack, first) for first in (150, 1500))
    assert late[0] < 1.25 * early[0] and late[1] < 1.25 * early[1], (early, late)


@pytest.mark.parametrize(("sampler", "most"), [("random", 0), ("tpe", 32 + 16 + 8)])
def test_no_more_results_are_remembered_than_proposals_look_at(
    make: Any, monkeypatch: pytest.MonkeyPatch, sampler: str, most: int
) -> None:
    monkeypatch.setattr(proposals, "WINDOW", 32)
    monkeypatch.setattr(proposals, "BLOCK", 16)
    coordinator = make(f"{SPACE}sampler: {sampler}\nrungs: none\n", trials=150)
    until(coordinator, FakePack("a", 4), 150)
    assert len(coordinator._studies["1"]._results) <= most


def test_opening_makes_no_row_of_what_has_ended_but_its_last(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = make(f"{SPACE}sampler: random\nrungs: none\n", trials=300)
    until(coordinator, FakePack("a", 4), 250)
    coordinator.close()
    made: Counter[str] = Counter()
    real = commits._row

    def noted(fields: list[Any]) -> Any:
        made[fields[0]] += 1
        return real(fields)

    monkeypatch.setattr(commits, "_row", noted)
    records, _ = read_ledger(coordinator.plan.folder)
    assert len(records.studies["1"].trials) >= 250 and records.epochs >= 600
    assert made["trials"] < 280 and made["epochs"] < 60 and made["lanes"] < 60
