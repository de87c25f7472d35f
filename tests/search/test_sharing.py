"""Packs on CPUs take their share of the work, and no lane is left for want of a taker."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mcutune.domain.trial import padded_rank
from mcutune.search.sharing import Load, fair_number, work_of
from tests.search.simulate import FakePack
from tests.search.test_coordinator import RANKS, ranks_of
from tests.search.words import Clock, orders_of

GROUP, LANE = 150, 12


def slow_work(loads: list[Load]) -> int:
    """What they take: an epoch of every lane, and 150 for each epoch of which a group has a lane."""
    total = 0
    for epoch in range(max((load.epochs for load in loads), default=0)):
        going = [load for load in loads if load.epochs > epoch]
        if going[0].encoder == "frozen":
            total += sum(LANE + load.padded for load in going) + GROUP * len({load.padded for load in going})
        else:
            total += sum(load.padded + 64 for load in going)
    return total


def some(rng: random.Random, encoder: str, most: int = 40) -> list[Load]:
    return [Load(rng.choice([8, 16, 32]), encoder, rng.randint(1, 9)) for _ in range(rng.randint(0, most))]


@pytest.mark.parametrize("encoder", ["frozen", "trained"])
@pytest.mark.parametrize("seed", range(20))
def test_work_and_shares_are_those_counted_epoch_by_epoch(seed: int, encoder: str) -> None:
    rng = random.Random(seed)
    packs = rng.randint(1, 5)
    mine, wanted, rest = some(rng, encoder), some(rng, encoder), some(rng, encoder)
    theirs = [some(rng, encoder) for _ in range(packs - 1)]
    waiting = [*wanted, *rest]
    assert work_of(waiting) == slow_work(waiting)
    again = GROUP * max((load.epochs for load in waiting), default=0) if encoder == "frozen" else 0
    share = (sum(map(slow_work, [mine, *theirs, waiting])) + (packs - 1) * again) / packs
    taken = 0
    while taken < len(wanted) and slow_work([*mine, *wanted[:taken]]) < share:
        taken += 1
    assert fair_number(mine, theirs, wanted, rest, packs) == taken


@pytest.mark.parametrize("seed", range(20))
def test_while_lanes_wait_one_of_the_packs_has_less_than_its_share(seed: int) -> None:
    rng = random.Random(seed)
    packs = [some(rng, "frozen") for _ in range(rng.randint(1, 5))]
    wanted = [*some(rng, "frozen"), Load(8, "frozen", 3)]
    for k in range(len(packs) * len(wanted)):
        mine = packs[k % len(packs)]
        number = fair_number(mine, [pack for pack in packs if pack is not mine], wanted, [], len(packs))
        mine += wanted[:number]
        del wanted[:number]
    assert not wanted


def work(orders: Any) -> int:
    return work_of([Load(padded_rank(one.configuration["rank"], 16), "frozen", one.epochs) for one in orders])


def test_two_packs_share_by_work_and_the_one_with_large_ranks_takes_few_others(make: Any) -> None:
    client = make(RANKS, trials=60, sampler="random", packs=2)
    large = orders_of(client, "a", 45)
    assert set(ranks_of(large)) == {16} and 5 < len(large) < 20
    assert not client.advance("a", [], [], [], 45).start  # the other one has not come yet, and may begin with these
    small = orders_of(client, "b", 45)
    assert set(ranks_of(small)) == {8} and len(small) > 30
    more = client.advance("a", [], [], [], 45).start
    assert len(large) + len(small) + len(more) == 60
    assert abs(work([*large, *more]) - work(small)) <= 5 * (LANE + 8 + GROUP)


def test_where_the_other_pack_has_no_places_all_are_handed_out(make: Any) -> None:
    client = make(RANKS, trials=60, sampler="random", packs=2)
    large = orders_of(client, "a", 56)
    small = orders_of(client, "b", 4)
    more = client.advance("a", [], [], [], 56).start
    assert len(small) == 4 and len(large) + len(more) == 56


def test_while_other_shapes_are_open_nobody_is_waited_for(make: Any) -> None:
    text = RANKS.replace("parameters:\n", "parameters:\n  encoder_width: {role: nuisance, values: [64, 128]}\n")
    client = make(text, trials=40, sampler="random", packs=2)
    shape = client.join("a", 99, "node", "cpu").shape
    orders = client.advance("a", [], [], [], 99).start
    held = client._packs._packs["a"]
    assert held.shape == shape and not [one for one in client._dispatch._open() if one[1] == shape] and orders


@pytest.mark.parametrize("expected", [1, 2, 3, 9])
@pytest.mark.parametrize("there", [1, 2, 3])
def test_a_search_ends_however_many_packs_never_come(make: Any, expected: int, there: int) -> None:
    clock = Clock()
    client = make(RANKS, clock, trials=60, sampler="random", packs=expected)
    packs = [FakePack(f"pack{k}", 16) for k in range(there)]
    working = packs
    while working:
        clock.now += 10.0
        working = [pack for pack in working if pack.step(client)]
    assert client.done
    # 60 lanes of 5 epochs by packs of 16 places: at best 20 epochs of them; a minute's wait costs some more.
    assert sum(len(pack.trained) for pack in packs) <= 30 + 10 * there
