"""The coordinator among faults: late, lost and lying packs, full disks, encoders."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.trial import Failure, LaneFailure, LaneId, State, Verdict, padded_rank
from mcutune.errors import Damaged
from mcutune.search import coordinator as coordinator_module
from mcutune.search.dispatch import HELD
from mcutune.search.ledger import NoSpace, read_ledger
from mcutune.search.proposals import STARTUP
from tests.search.simulate import SPACE, FakePack
from tests.search.words import ALIKE, ONE_SHAPE, Clock, events, lane_of, orders_of, result, said


def test_what_a_pack_is_told_at_the_start(make: Any) -> None:
    start = make(ALIKE, objective="worst").join("a", 2, "node", "cpu")
    assert (start.fold, start.max_rank, start.metric, start.objective) == ("1", 8, "ua", "worst")
    assert start.modalities == ("audio", "text") and start.combinations == (0, 1, 2)


def test_the_lowest_trial_comes_first_and_the_lag_bounds_what_looks_at_results(make: Any) -> None:
    lanes = [order.lane for order in orders_of(make(), places=99)]
    blind = 3 + STARTUP  # of a lag of 3: below that, too few results could be known for a model to guide
    assert lanes == [LaneId("1", trial, seed) for trial in range(blind) for seed in range(2)]


def test_a_sampler_that_looks_at_no_results_fills_the_pack_but_nothing_beyond(make: Any) -> None:
    lanes = [order.lane for order in orders_of(make(ALIKE, trials=90, sampler="random"), places=50)]
    assert lanes == [LaneId("1", trial, seed) for trial in range(25) for seed in range(2)]


def test_places_of_parked_and_ended_lanes_are_filled_in_the_same_answer(make: Any) -> None:
    text = ALIKE.replace("rungs: none", "rungs: {first: 1, eta: 2}").replace("seeds: 2", "seeds: 1")
    client = make(text, trials=90, sampler="random")
    pack = FakePack("a", 8)
    while client._records.studies["1"].counts["finished"] < 3:
        pack.step(client)
    assert client._records.studies["1"].counts["pruned"] > 3 and set(pack.trained) == {8}


def test_a_pack_with_many_parked_lanes_gets_no_trials_beyond_the_lag(make: Any) -> None:
    text = ALIKE.replace("rungs: none", "rungs: {first: 1, eta: 2}").replace("seeds: 2", "seeds: 1")
    client = make(text, trials=90, sampler="random")
    orders = orders_of(client, places=2)
    (first,) = [order for order in orders if order.lane.trial == 0]  # never heard of again: all others wait for it
    for _ in range(20):
        waiting = [order for order in orders if order is not first]
        orders = client.advance("a", [said(order, 1) for order in waiting], [], [], 2).start
    assert len(client._packs.hear("a").held) == HELD * 2 and not orders


def test_a_result_is_durable_before_it_is_acknowledged(make: Any, tmp_path: Path) -> None:
    client = make(ALIKE.replace("epochs: 5", "epochs: 1"))
    one, two = orders_of(client)
    verdicts = client.advance("a", [said(one, 1), said(two, 1)], [], [], 0).verdicts
    assert set(verdicts.values()) == {Verdict.FINISH}
    client.advance("a", [], [], [result(one, 1), result(two, 1)], 2)
    records, _ = read_ledger(tmp_path / "run")
    assert records.studies["1"].trials[0].state is State.FINISHED
    assert (tmp_path / "run/checkpoints/1/0/1/model.safetensors").read_bytes() == b"w"


def test_late_double_unknown_and_early_words_are_refused_and_noted_once(make: Any) -> None:
    client = make()
    one, _ = orders_of(client)
    client.lost("a", "gone")
    assert client.advance("a", [said(one, 1)], [], [], 2).done  # a pack that is not known any more
    again = orders_of(client, "b", 1)[0]
    assert again.lane == one.lane and again.attempt == 2
    for _ in range(3):
        late = client.advance("b", [said(one, 1)], [], [result(one, 1)], 0)
        unknown = replace(said(one, 1), lane=LaneId("1", 99, 0))
        elsewhere = replace(said(one, 1), lane=LaneId("nowhere", 0, 0))
        negative = replace(said(one, 1), lane=LaneId("1", 0, -1))
        assert client.advance("b", [unknown, elsewhere, negative], [], [], 0).verdicts[unknown.lane] is Verdict.END
    assert late.verdicts[again.lane] is Verdict.CONTINUE and not lane_of(client, one).epochs
    assert events(client).count("refused") == 3
    client.advance("b", [said(again, 1)], [], [], 0)
    client.advance("b", [said(again, 1)], [], [], 0)  # said twice: counted once
    assert len(lane_of(client, again).epochs) == 1
    client.advance("b", [], [], [result(again, 1)], 0)  # a result before the budget is used
    assert lane_of(client, again).attempt == 3 and lane_of(client, again).failures == [Failure.CRASH]


def test_an_epoch_left_out_is_a_crash(make: Any) -> None:
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [said(one, 2)], [], [], 0)
    assert lane_of(client, one).failures == [Failure.CRASH]


@pytest.mark.parametrize(
    ("failure", "tries"), [(Failure.CRASH, 4), (Failure.OOM, 2), (Failure.NAN, 1), (Failure.METRIC, 1)]
)
def test_failures_are_tried_again_as_often_as_that_can_help(make: Any, failure: Failure, tries: int) -> None:
    client = make()
    (order,) = orders_of(client, places=1)
    seeds = []
    for attempt in range(1, tries + 1):
        assert order.attempt == attempt and order.lane == LaneId("1", 0, 0)
        seeds.append((order.lane.seed, order.configuration))
        orders = client.advance("a", [], [LaneFailure(order.lane, attempt, 0, failure, "no")], [], 1)
        order = orders.start[0]
    trial = client._records.studies["1"].trials[0]
    assert trial.state is State.FAILED and trial.failure is failure and order.lane.trial == 1
    assert all(seed == seeds[0] for seed in seeds)  # a retry is the same lane: same seed, same configuration


def test_a_lane_that_gets_on_may_be_lost_again_and_again(make: Any) -> None:
    client = make()
    for epoch in range(1, 6):
        pack = f"pack {epoch}"
        order = orders_of(client, pack, 1)[0]
        assert order.lane == LaneId("1", 0, 0) and order.attempt == epoch
        for past in range(1, epoch + 1):
            client.advance(pack, [said(order, past)], [], [], 0)
        client.lost(pack, "its node went away")
    for _ in range(9):  # it had been further before: no sign against it
        orders_of(client, "early", 1)
        client.lost("early", "its node went away")
    for _ in range(3):
        assert client._records.studies["1"].trials[0].state is State.RUNNING
        order = orders_of(client, "last", 1)[0]
        for past in range(1, 6):
            client.advance("last", [said(order, past)], [], [], 0)
        client.lost("last", "its node went away")
    assert client._records.studies["1"].trials[0].failure is Failure.LOST


def test_a_lane_lost_in_company_is_tried_alone_before_it_is_blamed(make: Any) -> None:
    client = make()
    for _ in range(2):
        assert len(orders_of(client, "shared", 3)) == 3
        client.lost("shared", "its node went away")
    (first,) = orders_of(client, "first", 3)  # two losses in company: the lanes are tried one at a time
    (second,) = orders_of(client, "second", 3)
    assert first.lane != second.lane
    orders = client.advance("first", [said(first, 1)], [], [], 3)  # its next epoch clears it; who is suspect waits
    assert all(not client._studies["1"].lane(order.lane).suspect for order in orders.start)
    for attempt in range(4):
        assert client._records.studies["1"].trials[second.lane.trial].state is State.RUNNING, attempt
        client.lost("second", "its process died")
        again = orders_of(client, "second", 3)
        assert [order.lane for order in again] == [second.lane] or attempt == 3
    assert client._records.studies["1"].trials[second.lane.trial].failure is Failure.LOST


def test_lanes_that_wait_in_a_lost_pack_are_not_suspected(make: Any) -> None:
    client = make(ALIKE.replace("rungs: none", "rungs: {first: 1, eta: 2}"))
    for _ in range(3):
        orders = orders_of(client, "a", 2)
        client.advance("a", [said(orders[0], 1)], [], [], 0)
        client.lost("a", "its node went away")
    waited = client._studies["1"].lane(orders[0].lane)
    assert len(waited.epochs) == 1 and not waited.suspect and not waited.failures


def test_a_trial_fails_with_its_first_failed_lane_and_its_checkpoints_go(make: Any, tmp_path: Path) -> None:
    client = make(ALIKE.replace("epochs: 5", "epochs: 1"))
    one, two = orders_of(client)
    client.advance("a", [said(one, 1)], [], [], 0)
    client.advance("a", [], [], [result(one, 1)], 0)
    assert (tmp_path / "run/checkpoints/1/0/0").exists()
    client.advance("a", [], [LaneFailure(two.lane, 1, 1, Failure.DIVERGED, "too far")], [], 0)
    trial = client._records.studies["1"].trials[0]
    assert trial.state is State.FAILED and "seed 1" in trial.message
    assert not (tmp_path / "run/checkpoints/1/0").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_ends_the_trial(make: Any, bad: float) -> None:
    client = make()
    one, two = orders_of(client)
    client.advance("a", [replace(said(one, 1), scores=(0.5, bad, 0.5))], [], [], 0)
    assert client._records.studies["1"].trials[0].failure is Failure.METRIC
    third = client.advance("a", [], [], [], 1).start[0]
    client.advance("a", [replace(said(third, 1), loss=bad)], [], [], 0)
    assert client._records.studies["1"].trials[third.lane.trial].failure is Failure.NAN


def test_too_few_scores_end_the_trial(make: Any) -> None:
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [replace(said(one, 1), scores=(0.5,))], [], [], 0)
    assert "1 scores for 3 combinations" in client._records.studies["1"].trials[0].message


def test_a_silent_pack_is_lost_and_its_late_words_are_refused(make: Any) -> None:
    clock = Clock()
    client = make(clock=clock)
    one, two = orders_of(client)
    clock.now += 59
    orders_of(client, "b", 1)
    clock.now += 2
    client.advance("b", [], [], [], 0)
    assert [lane_of(client, order).attempt for order in (one, two)] == [2, 2]
    assert client.advance("a", [said(one, 1)], [], [], 0).verdicts == {one.lane: Verdict.END}


def test_a_pack_with_slow_epochs_is_given_time(make: Any) -> None:
    clock = Clock()
    client = make(clock=clock)
    one, _ = orders_of(client)
    for _ in range(3):
        clock.now += 50
        client.advance("a", [], [], [], 0)
    clock.now += 400
    client.advance("b", [], [], [], 0)
    orders_of(client, "b", 1)
    assert lane_of(client, one).attempt == 1


def test_repeated_epochs_must_be_equal_and_are_kept_once(make: Any) -> None:
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [said(one, 1)], [], [], 0)
    client.lost("a", "gone")
    (again,) = orders_of(client, "b", 1)
    client.advance("b", [said(again, 1)], [], [], 0)
    assert "not reproducible" not in events(client)
    client.advance("b", [said(again, 2)], [], [], 0)
    client.lost("b", "gone")
    (third,) = orders_of(client, "c", 1)
    client.advance("c", [said(third, 1)], [], [], 0)
    other = replace(said(third, 2), scores=(0.1, 0.1, 0.1))
    client.advance("c", [other], [], [], 0)
    assert events(client).count("not reproducible") == 1
    assert [row.epoch for row in lane_of(client, third).epochs] == [1, 2]
    assert lane_of(client, third).epochs[1].value > 0.2  # the first is kept


def test_a_full_disk_pauses_and_nothing_is_lost(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(ALIKE.replace("epochs: 5", "epochs: 1"))
    one, two = orders_of(client)
    client.advance("a", [said(one, 1), said(two, 1)], [], [], 0)
    with monkeypatch.context() as patch:
        patch.setattr(coordinator_module, "write_checkpoints", _no_room)
        orders = client.advance("a", [], [], [result(one, 1), result(two, 1)], 2)
        assert not orders.start and orders.wait > 0 and not orders.done
        assert "No space" in client.progress().paused
    with monkeypatch.context() as patch:
        patch.setattr(client._ledger, "commit", _full)
        orders = client.advance("a", [], [], [], 2)
        assert not orders.start and "full" in client.progress().paused
    orders = client.advance("a", [], [], [], 2)
    assert orders.start and not client.progress().paused
    assert client._records.studies["1"].trials[0].state is State.FINISHED


def test_a_trial_that_fails_while_the_disk_is_full_needs_no_result(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(ALIKE.replace("epochs: 5", "epochs: 1"))
    one, two = orders_of(client)
    assert one.lane.trial == two.lane.trial
    client.advance("a", [said(one, 1)], [], [], 0)
    failed = LaneFailure(two.lane, two.attempt, 1, Failure.NAN, "loss nan")
    with monkeypatch.context() as patch:
        patch.setattr(coordinator_module, "write_checkpoints", _no_room)
        client.advance("a", [], [failed], [result(one, 1)], 0)
        assert "No space" in client.progress().paused
    client.advance("a", [], [], [], 0)
    assert client._records.studies["1"].trials[0].state is State.FAILED
    assert not client.progress().paused


def _no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _full(*_: Any) -> None:
    raise NoSpace("the disk is full")


def test_after_an_io_error_nothing_more_is_written(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make()
    one, _ = orders_of(client)

    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("mcutune.search.head.Head.write", broken)
        with pytest.raises(Damaged, match="Input/output"):
            client.advance("a", [said(one, 1)], [], [], 0)
    with pytest.raises(Damaged, match="Input/output"):
        client.advance("a", [said(one, 2)], [], [], 0)


def test_packs_spread_over_folds_and_shapes(make: Any) -> None:
    client = make(SPACE, folds=("1", "2"))
    starts = [client.join(name, 1, "node", "cpu") for name in "abcd"]
    assert {start.fold for start in starts} == {"1", "2"}
    assert len({(start.fold, start.shape) for start in starts}) == 4


def test_an_encoder_is_trained_once_and_a_damaged_one_again(make: Any, tmp_path: Path) -> None:
    client = make()
    for pack in "ab":
        client.join(pack, 1, "node", "cpu")
    key = "ab" * 32
    assert client.encoder(key, "a") == "train" and client.encoder(key, "b") == "wait"
    client.lost("a", "gone")
    assert client.encoder(key, "b") == "train"
    client.put_encoder(key, {"encoder.safetensors": b"weights"})
    assert client.encoder(key, "c") == {"encoder.safetensors": b"weights"}
    path = tmp_path / "home" / "encoders" / key / "encoder.safetensors"
    path.write_bytes(b"weightz")
    assert client.encoder(key, "b") == "train"


def test_training_an_encoder_is_not_silence(make: Any) -> None:
    clock = Clock()
    client = make(clock=clock)
    one, _ = orders_of(client)
    assert client.encoder("ab" * 32, "a") == "train"
    clock.now += 1800
    orders_of(client, "b", 1)
    assert lane_of(client, one).attempt == 1


def test_progress_is_plain_and_pickles(make: Any) -> None:
    import pickle

    client = make(SPACE, trials=60)
    pack = FakePack("a", 3)
    while not client._records.studies["1"].best:
        pack.step(client)
    progress = client.progress()
    assert pickle.loads(pickle.dumps(progress)) == progress
    assert progress.lanes > 0 and progress.packs == 1 and 0 < progress.share < 1 and progress.epochs > 0
    assert progress.folds[0].best is not None and set(progress.folds[0].scores) == {"audio", "text", "audio+text"}


def test_no_lane_is_given_to_two_packs(make: Any) -> None:
    client = make()
    lanes = [order.lane for pack in "abc" for order in orders_of(client, pack, 3)]
    assert len(lanes) == len(set(lanes)) == 9


RANKS = ONE_SHAPE.replace("seeds: 2", "seeds: 1").replace("lag: 3", "lag: 64")


def ranks_of(orders: Any) -> list[int]:
    return [padded_rank(order.configuration["rank"], 16) for order in orders]


def test_a_pack_on_a_cpu_gets_lanes_of_one_padding(make: Any) -> None:
    client = make(RANKS, trials=40, sampler="random")
    first = orders_of(client, "a", 20)
    assert set(ranks_of(first)) == {16} and len(first) < 20
    assert not client.advance("a", [], [], [], 20).start  # beside 16s only 16s, and all have begun
    second = orders_of(client, "b", 20)
    assert set(ranks_of(second)) == {8} and len(second) == 20


def test_a_pack_that_trains_nothing_takes_what_there_is(make: Any) -> None:
    client = make(RANKS.replace("epochs: 5", "epochs: 1"), trials=40, sampler="random")
    assert set(ranks_of(orders_of(client, "a", 20))) == {16}
    assert set(ranks_of(orders_of(client, "b", 20))) == {8}
    third = orders_of(client, "c", 20)
    assert third and set(ranks_of(third)) == {8}


def test_where_places_are_left_over_every_lane_is_handed_out(make: Any) -> None:
    client = make(RANKS, trials=20, sampler="random")
    assert set(ranks_of(orders_of(client, "a", 64))) == {8, 16}


def test_on_a_gpu_all_lanes_are_padded_alike_and_come_in_order(make: Any) -> None:
    client = make(RANKS, trials=40, sampler="random")
    assert client.join("a", 20, "node", "cuda:0") is not None
    orders = client.advance("a", [], [], [], 20).start
    assert [order.lane.trial for order in orders] == list(range(20))


def test_a_pack_looks_no_further_ahead_than_twice_its_places(make: Any) -> None:
    client = make(RANKS, trials=40, sampler="random")
    assert max(order.lane.trial for order in orders_of(client, "a", 4)) < 8
