"""What the bench of rungs computes from two searches, and that it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.rungs import GROUP, Played, differing, foretold, loss, measure, rows

FULL = Played(
    10.0,
    {0: (0.1, 0.2, 0.5), 1: (0.3, 0.2, 0.4), 2: (0.2, 0.3, 0.3)},
    {0: 0.5, 1: 0.4, 2: 0.3},
    (),
    (),
    0.9,
)
OURS = replace(FULL, seconds=5.0, curves={0: (0.1,), 1: (0.3, 0.2, 0.4), 2: (0.2,)}, ends={1: 0.4})
OURS = replace(OURS, rungs=(1, 2), scouted=(None, 0.5))


def test_the_winner_loses_what_the_rungs_have_ended() -> None:
    mean, bound = loss([(FULL, OURS)])
    assert mean == pytest.approx(-10.0) and bound is None
    mean, bound = loss([(FULL, OURS), (FULL, FULL)])
    assert mean == pytest.approx(-5.0) and bound == pytest.approx(-5.0 - 6.3138 * 5.0, abs=1e-3)  # t, one freedom


def test_a_rung_is_compared_with_the_end_by_the_best_epoch_so_far() -> None:
    assert foretold(FULL, 1) == pytest.approx(-0.5)
    assert foretold(FULL, 2) == pytest.approx(-0.866, abs=1e-3)  # epochs 1 and 2 of trial 1 count as .3, as trial 2's


def test_an_epoch_that_is_not_the_same_is_found() -> None:
    assert differing([(FULL, OURS)]) == 0
    assert differing([(FULL, replace(OURS, curves={**OURS.curves, 1: (0.3, 0.2, 0.41)}))]) == 1


def test_the_rows_hold_the_goals() -> None:
    made = {row.name.split(": ")[1]: row for row in rows([(FULL, OURS)] * 2, "x", goals=True)}
    assert made["winner, with rungs less without"].met is False and made["time of a search"].ratio == 2.0
    assert made["epochs trained, of full budgets"].value == pytest.approx(100 * 5 / 9)
    assert all(row.met is None for row in rows([(FULL, OURS)], "x", goals=False))


@pytest.mark.long
def test_it_runs() -> None:
    found = measure(quick=True)
    assert found and all(row.group == GROUP and row.unit and row.value is not None for row in found)
    assert found[-1].value == 0
