"""The central invariant: a lane's numbers do not depend on its neighbours, the pack's size or its place, in any bit."""

import numpy as np
import pytest
import torch

from mcutune.model import precision
from tests.training.fold import fold, order, pack_of, trained

KINDS = [{}, {"encoder_kind": "dialogue"}, {"encoder": "trained"}]


def mixed(shape):
    """Seven lanes with unequal ranks, β, sensitivity, learning rate, weight decay, dropout, fusion and seed."""
    return [
        order(0, 0, **shape),
        order(1, 0, rank=1, beta=0.5, **shape),
        order(2, 1, rank=3, learning_rate=3e-3, weight_decay=0.1, optimizer="adamw", **shape),
        order(3, 2, rank=4, sensitivity=0.5, dropout=0.0, adapter_dropout=0.0, **shape),
        order(4, 1, rank=2, fusion="sum", orthogonality="abs_cos", **shape),
        order(5, 0, rank=4, fusion="common", gradient_clip=0.5, **shape),
        order(6, 2, rank=2, dropout=0.6, adapter_dropout=0.5, rank_scaling="alpha/sqrt(r)", **shape),
    ]


def same(one, other):
    assert torch.equal(one.vectors.parameters, other.vectors.parameters)
    assert torch.equal(one.vectors.first, other.vectors.first)
    assert torch.equal(one.vectors.second, other.vectors.second)
    assert torch.equal(one.best, other.best)
    assert one.probabilities == other.probabilities
    assert one.divergences == other.divergences
    assert one.best_scores == other.best_scores


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", KINDS, ids=["frozen", "dialogue", "trained"])
def test_each_lane_of_seven_equals_itself_alone_and_in_a_pair(shape, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        data, orders = fold(gaps=shape != {}), mixed(shape)
        together, reports = trained(pack_of(data, shape), orders)
        for place, one in enumerate(orders):
            alone, report = trained(pack_of(data, shape), [one])
            same(alone[0], together[place])
            assert report[0] == reports[place]
        pair, _ = trained(pack_of(data, shape), [orders[5], orders[2]])
        same(pair[0], together[5])
        same(pair[1], together[2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", KINDS, ids=["frozen", "dialogue", "trained"])
def test_also_in_bfloat16_where_a_cpu_multiplies_it_as_float32(shape, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
    shape = {**shape, "precision": "bfloat16"}
    data, orders = fold(gaps="encoder_kind" in shape), mixed(shape)
    together, reports = trained(pack_of(data, shape), orders)
    for place, one in enumerate(orders):
        alone, report = trained(pack_of(data, shape), [one])
        same(alone[0], together[place])
        assert report[0] == reports[place]


def test_changing_one_lane_changes_no_other():
    data, orders = fold(), mixed({})
    together, _ = trained(pack_of(data), orders)
    orders[3] = order(3, 5, rank=1, learning_rate=1.0, beta=100.0)
    other, _ = trained(pack_of(data), orders)
    for place in (0, 1, 2, 4, 5, 6):
        same(together[place], other[place])
    assert not torch.equal(together[3].vectors.parameters, other[3].vectors.parameters)


def test_a_lane_that_explodes_harms_no_other():
    data = fold()
    pack = pack_of(data)
    quiet = pack.lane(order(0, 0))
    wild = pack.lane(order(1, 0))
    wild.vectors.parameters[0] = float("nan")
    reports = pack.epoch([wild, quiet])
    alone, expected = trained(pack_of(data), [order(0, 0)], epochs=1)
    assert reports[0].failure.value == "nan"
    assert reports[1] == expected[0]
    same(quiet, alone[0])


def test_membership_may_change_between_epochs():
    """Refill, parking and compaction: lanes leave, rest and come back beside others."""
    data, orders = fold(), mixed({})
    pack = pack_of(data)
    lanes = [pack.lane(o) for o in orders]
    pack.epoch(lanes)
    pack.epoch(lanes[:2])  # the others rest
    pack.epoch([lanes[4], pack.lane(order(9, 3)), lanes[2]])  # other places, a new neighbour
    for place in (0, 1, 2, 4):
        alone, _ = trained(pack_of(data), [orders[place]], epochs=2)
        same(alone[0], lanes[place])


@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_padded_rank_equals_true_rank(shape):
    data = fold()
    padded, _ = trained(pack_of(data, shape, max_rank=8), [order(0, 0, rank=2, **shape)])
    true, _ = trained(pack_of(data, shape, max_rank=2), [order(0, 0, rank=2, **shape)])
    wide = pack_of(data, shape, max_rank=8).program_of(2).layout
    narrow = pack_of(data, shape, max_rank=2).program_of(2).layout
    one = wide.unpadded(padded[0].vectors.parameters, 2)
    # Adam turns a rounding error of a tiny gradient into part of a step of 1e-2; values and gradients are compared in
    # float64 in tests/model/test_twins.py.
    for name, tensor in narrow.unpadded(true[0].vectors.parameters, 2).items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-2, atol=2e-3)
    np.testing.assert_allclose(padded[0].best_scores, true[0].best_scores, atol=0.02)
    # The padding is exactly zero: what is cut away and padded again is the same vector.
    assert torch.equal(wide.padded(one), padded[0].vectors.parameters)


@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_ranks_are_padded_to_a_number_of_their_own_whatever_the_neighbours(shape):
    data, ranks = fold(), (12, 3, 24, 8, 9, 1)
    orders = [order(i, i % 2, rank=rank, **shape) for i, rank in enumerate(ranks)]
    pack = pack_of(data, shape, max_rank=24)
    together, reports = trained(pack, orders)
    padded = [pack.program_of(rank).layout.size for rank in ranks]
    assert len(set(padded)) == 3 and padded[0] == padded[4] and padded[1] == padded[3] == padded[5]
    for place, one in enumerate(orders):
        alone, report = trained(pack_of(data, shape, max_rank=24), [one])
        same(alone[0], together[place])
        assert report[0] == reports[place]


@pytest.mark.parametrize("most", [3, 5, 6, 7, 9, 11, 14])
def test_any_rank_may_be_the_largest(most):
    """Where a tensor of a lane has an odd size, the next lane's lies at another alignment, and products differ."""
    data = fold(gaps=True)
    orders = [order(i, i % 3, rank=rank) for i, rank in enumerate((most, 1, most - 1, most, 2))]
    together, reports = trained(pack_of(data, max_rank=most), orders)
    for place, one in enumerate(orders):
        alone, report = trained(pack_of(data, max_rank=most), [one])
        same(alone[0], together[place])
        assert report[0] == reports[place]


@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_scores_of_a_regression_are_summed_in_one_order(shape):
    data = fold(regression=True)
    orders = mixed(shape)
    _, reports = trained(pack_of(data, shape), orders)
    for place, one in enumerate(orders):
        _, report = trained(pack_of(data, shape), [one])
        assert report[0] == reports[place]


def test_lanes_of_another_padding_may_come_and_go():
    data = fold()
    pack = pack_of(data, max_rank=16)
    light, heavy = pack.lane(order(0, 0, rank=2)), pack.lane(order(1, 0, rank=16))
    pack.epoch([heavy, light])
    pack.epoch([light])  # what the other's stack held is let go
    pack.epoch([light, heavy])
    for lane, rank, epochs in ((light, 2, 3), (heavy, 16, 2)):
        alone, _ = trained(pack_of(data, max_rank=16), [order(lane.order.lane.trial, 0, rank=rank)], epochs=epochs)
        same(alone[0], lane)


def test_seeds_are_common_to_trials_and_tell_lanes_apart():
    data = fold()
    lanes, _ = trained(pack_of(data), [order(0, 0), order(7, 0), order(0, 1)])
    same(lanes[0], lanes[1])
    assert not torch.equal(lanes[0].vectors.parameters, lanes[2].vectors.parameters)


@pytest.mark.parametrize("seeds", [(2, 1, 0), (0, 2, 0, 1), (1, 0)])
def test_seeds_may_come_in_any_order(seeds):
    """Also where no two lanes share their noise, and beside a lane of another epoch."""
    data = fold()
    pack = pack_of(data)
    lanes = [pack.lane(order(i, seed, dropout=0.4)) for i, seed in enumerate(seeds)]
    pack.epoch(lanes[:1])
    pack.epoch(lanes)
    for place, seed in enumerate(seeds):
        alone, _ = trained(pack_of(data), [order(place, seed, dropout=0.4)], epochs=2 if place == 0 else 1)
        same(alone[0], lanes[place])


def test_neighbours_that_draw_other_rows_change_nothing_in_large_batches():
    """Lanes of a seed with unlike probabilities share products over the rows that any of them draws."""
    data, shape = fold(rows=1600), {"batch": 1024}
    orders = [order(i, 0, rank=4, static=list(q), **shape) for i, q in enumerate(_PROBABILITIES)]
    together, _ = trained(pack_of(data, shape), orders)
    for place, one in enumerate(orders):
        alone, _ = trained(pack_of(data, shape), [one])
        same(alone[0], together[place])


_PROBABILITIES = [(1, 1, 1, 1, 1, 1, 1), (9, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 20), (1, 0, 0, 0, 0, 0, 0)]


@pytest.mark.parametrize("rate", ["dropout", "adapter_dropout"])
def test_lanes_of_a_seed_may_have_unequal_rates(rate):
    """They read the same rows, so all but the rate would let them share their dropped inputs."""
    data = fold()
    orders = [order(i, 0, **{rate: value}) for i, value in enumerate((0.2, 0.6, 0.2))]
    together, _ = trained(pack_of(data), orders)
    for place, one in enumerate(orders):
        alone, _ = trained(pack_of(data), [one])
        same(alone[0], together[place])
