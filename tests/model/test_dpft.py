"""DPFT against a calculation by hand, and its projection against a slow search."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mcutune.model.divergence import DIVERGENCES, divergence, divergences
from mcutune.model.dpft import DPFT, draw, ladder, project


def settings(**values):
    return SimpleNamespace(**{"sensitivity": 0.1, "range": 0.2, "freeze_after": None, "static": None, **values})


def test_a_step_by_hand():
    """Seven combinations; progress .7 .1 .6 .2 .5 .3 .4: slowest 1, 3, 5 gain 1, 1/2, 1/4; fastest 0, 2, 4 lose."""
    state = DPFT.start(7, settings())
    state = state.after(1, np.zeros(7))
    assert np.array_equal(state.q, np.full(7, 1 / 7))
    state = state.after(2, np.array([0.7, 0.1, 0.6, 0.2, 0.5, 0.3, 0.4]))
    by_hand = (1 + 0.1 * np.array([-1, 1, -0.5, 0.5, -0.25, 0.25, 0])) / 7
    np.testing.assert_allclose(state.q, by_hand, atol=1e-12)
    # The next step compares with the last epoch, not with the first (what the authors' code does wrong).
    again = state.after(3, np.array([0.7, 0.1, 0.6, 0.2, 0.5, 0.3, 0.4]) + np.array([0, 0.7, 0.1, 0.6, 0.2, 0.5, 0.3]))
    second = 0.1 * np.array([1, -1, 0.5, -0.5, 0.25, -0.25, 0]) / 7
    np.testing.assert_allclose(again.q, by_hand + second, atol=1e-12)


def test_bounds_hold_and_the_sum_stays_one():
    state = DPFT.start(7, settings(sensitivity=1.0))
    for epoch in range(1, 20):
        state = state.after(epoch, np.arange(7.0) * epoch)
        assert state.q.sum() == pytest.approx(1)
        assert state.q.min() >= 0.8 / 7 - 1e-12 and state.q.max() <= 1.2 / 7 + 1e-12
    assert state.q[0] > 1 / 7 > state.q[6]


def test_off_frozen_and_static():
    trace = [np.arange(7.0) * e for e in range(1, 6)]

    def after(**values):
        state = DPFT.start(7, settings(**values))
        for epoch, jsd in enumerate(trace, 1):
            state = state.after(epoch, jsd)
        return state.q

    assert np.array_equal(after(sensitivity=0.0), np.full(7, 1 / 7))
    assert np.array_equal(after(freeze_after=1), np.full(7, 1 / 7))
    two = DPFT.start(7, settings())
    for epoch, jsd in enumerate(trace[:2], 1):
        two = two.after(epoch, jsd)
    assert np.array_equal(after(freeze_after=2), two.q)
    assert np.array_equal(after(static=(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0)), np.array([0.25, 0.25, 0, 0, 0, 0, 0.5]))


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [1, -1]), (3, [1, 0, -1]), (4, [1, 0.5, -0.5, -1])])
def test_ladder(count, expected):
    assert ladder(np.arange(count, dtype=float)).tolist() == expected


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(0, 1))
def test_projection_is_the_nearest_point(values, spread):
    q = np.array(values) + 0.1
    count = len(q)
    low, high = (1 - spread) / count, (1 + spread) / count
    point = project(q, low, high)
    assert point.sum() == pytest.approx(1, abs=1e-9)
    assert (point >= low - 1e-12).all() and (point <= high + 1e-12).all()
    random = np.random.default_rng(0)
    for _ in range(20):  # no feasible point is nearer
        other = np.full(count, 1 / count) + (random.random(count) - 0.5) * spread / count
        other += (1 - other.sum()) / count
        if (other >= low).all() and (other <= high).all():
            assert np.linalg.norm(point - q) <= np.linalg.norm(other - q) + 1e-9


def test_draws_follow_the_probabilities_and_stay_inside():
    q = np.array([0.2, 0.3, 0.5])
    inside = np.array([[True, False, False], [False, True, False], [True, True, True]])
    uniform = (np.arange(10000) + 0.5) / 10000
    drawn = draw(q, uniform, np.full(10000, 2), inside)
    np.testing.assert_allclose(np.bincount(drawn) / 10000, q, atol=1e-3)
    assert set(draw(q, uniform, np.full(10000, 1), inside).tolist()) == {1}
    assert draw(np.array([0.5, 0.5, 0.0]), np.array([np.nextafter(1, 0)]), np.array([2]), inside)[0] == 1


def test_a_row_whose_combinations_are_never_drawn_is_left_out():
    inside = np.array([[True, False, False], [False, True, False], [True, True, True]])
    drawn = draw(np.array([0.0, 0.4, 0.6]), np.array([0.5, 0.5, 0.5]), np.array([0, 1, 2]), inside)
    assert drawn.tolist() == [-1, 1, 2]


@pytest.mark.parametrize("apart", [1e-4, 1e-2, 1.0, 200.0])
def test_jensen_shannon_keeps_its_digits_where_distributions_are_close(apart):
    """DPFT lives on how small values change; 200 apart, probabilities are 0 in float32 on either side."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(64, 128, generator=generator)
    private = shared + apart * torch.randn(64, 128, generator=generator)
    p, q = (torch.softmax(x.double(), -1).numpy() for x in (shared, private))
    expected = (jensenshannon(p, q, axis=-1) ** 2).mean()
    found = divergence("js", shared, private)
    assert (found >= 0).all() and (found <= np.log(2) + 1e-6).all()
    assert float(found.double().mean()) == pytest.approx(expected, rel=2e-3)
    assert torch.equal(divergence("js", shared, shared), torch.zeros(64))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_of_many_pairs_are_those_of_each(name):
    generator = torch.Generator().manual_seed(0)
    shared, private = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 3, 5, 8, generator=generator)
    each = torch.stack([divergence(name, shared, private[:, j]) for j in range(3)], 1)
    assert torch.equal(divergences(name, shared, private), each)
