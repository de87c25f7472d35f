"""A run that is continued, changed, stopped, or has nothing left to try."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcutune.domain.trial import Verdict
from mcutune.errors import BadInput, Busy, Problems, Stopped
from mcutune.files import read_json
from mcutune.search import coordinator as coordinator_module
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.lock import holder_of
from mcutune.search.run_folder import BEST, command_at_work, refuse_if_stopped, request_stop
from tests.search.simulate import SPACE, FakePack, Play, data_of, plan_of
from tests.search.words import ALIKE, ONE_SHAPE, Clock, events, lane_of, orders_of, said


def test_a_second_search_of_the_name_is_busy_and_says_who(make: Any) -> None:
    make()
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* since 20"):
        make()


def test_a_changed_space_is_refused_with_the_difference(make: Any) -> None:
    make(ONE_SHAPE).close()
    with pytest.raises(BadInput, match=r"rank.values: \[1, 2, 4, 8, 16\] -> \[1, 2, 4, 8\].*--fork"):
        make(ALIKE)
    with pytest.raises(BadInput, match="folds: 1 -> 1, 2"):
        make(ONE_SHAPE, folds=("1", "2"))


def test_more_trials_continue_a_finished_search(make: Any, tmp_path: Path) -> None:
    Play(plan_of(tmp_path / "run", trials=6)).run()
    digests = [t.digest for t in read_ledger(tmp_path / "run")[0].studies["1"].trials]
    best = read_json(tmp_path / "run" / BEST)
    Play(plan_of(tmp_path / "run", trials=12)).run()
    after = [t.digest for t in read_ledger(tmp_path / "run")[0].studies["1"].trials]
    assert len(after) == 12 and after[:6] == digests
    assert read_json(tmp_path / "run" / BEST)["best"][0]["score"] >= best["best"][0]["score"]


def test_other_data_or_versions_are_named_and_recorded(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make().close()
    other = SimpleNamespace(**{**vars(data_of("1")), "table_hash": "other"})
    monkeypatch.setattr("tests.search.simulate.data_of", lambda fold: other)
    monkeypatch.setattr(coordinator_module.agree.__globals__["platform"], "python_version", lambda: "9.9")
    with pytest.raises(Problems) as caught:
        make()
    assert "data.table_hash: table -> other" in str(caught.value) and "versions.python" in str(caught.value)
    client = make(accept_change=True)
    assert events(client).count("accepted change") == 2
    manifest = read_json(client.plan.folder / "manifest.json")
    assert len(manifest["accepted"]) == 2 and manifest["versions"]["python"] == "9.9"
    client.close()
    make()  # accepted once, it is the new state of affairs


def test_a_stop_is_obeyed_and_the_same_command_continues(make: Any, tmp_path: Path) -> None:
    expected = Play(plan_of(tmp_path / "other" / "run", ALIKE)).run()
    client = make()
    one, _ = orders_of(client)
    client.advance("a", [said(one, 1)], [], [], 0)
    request_stop(client.plan.folder)
    orders = client.advance("a", [said(one, 2)], [], [], 2)
    assert orders.done and orders.verdicts[one.lane] is Verdict.END and not orders.start
    assert client.join("b", 2, "node", "cpu") is None and client.progress().stopped
    assert len(lane_of(client, one).epochs) == 2  # what was said is kept
    client.close()
    assert Play(plan_of(tmp_path / "run", ALIKE)).run() == expected


def test_a_stop_is_seen_before_any_pack_has_joined(make: Any) -> None:
    client = make()
    assert not client.progress().stopped
    request_stop(client.plan.folder)
    assert client.progress().stopped
    assert client.join("a", 2, "node", "cpu") is None


def test_a_stop_that_was_asked_before_the_coordinator_is_there_is_obeyed_once(make: Any, tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run", ONE_SHAPE)
    (tmp_path / "run").mkdir(exist_ok=True)
    request_stop(plan.folder)  # of a command that was killed
    with command_at_work(plan):
        refuse_if_stopped(plan.folder)  # no more
        assert holder_of(plan.folder) is not None
        with pytest.raises(Busy), command_at_work(plan):
            pass
        request_stop(plan.folder)
        with pytest.raises(Stopped):
            refuse_if_stopped(plan.folder)
        client = make()
        assert client.progress().stopped and client.join("a", 2, "node", "cpu") is None
        client.close()
    assert holder_of(plan.folder) is None
    assert not make().progress().stopped


def test_a_time_budget_ends_proposals_and_running_trials_end_well(make: Any) -> None:
    clock = Clock()
    client = make(ONE_SHAPE + "budget: 1h\n", clock=clock, trials=1000)
    pack = FakePack("a", 4)
    for _ in range(30):
        pack.step(client)
    clock.now += 3600
    for _ in range(100):
        pack.step(client)
    counts = client._records.studies["1"].counts
    assert client.done and counts["running"] == 0 and 4 < sum(counts.values()) < 100
    client.close()
    assert make(ONE_SHAPE + "budget: 1h\n", trials=1000).done  # time spent before counts


def test_a_gpu_budget_counts_the_time_of_packs_on_gpus(make: Any) -> None:
    clock = Clock()
    client = make(ONE_SHAPE + "budget: 1gpu-h\n", clock=clock)
    client.join("cpu", 2, "node", "cpu")
    client.join("one", 2, "node", "cuda:0")
    client.join("two", 2, "node", "cuda:1")
    for _ in range(36):
        clock.now += 50
        for pack in ("cpu", "one", "two"):
            client.advance(pack, [], [], [], 0)
    assert client._meter.gpu == pytest.approx(3600) and not client._proposing


def test_a_finite_space_is_exhausted_and_repeats_are_not_trained(make: Any, tmp_path: Path) -> None:
    text = "parameters:\n  rank: {role: scientific, values: [2, 4]}\nfixed: {epochs: 2}\nlag: 2\nsampler: random\n"
    expected = Play(plan_of(tmp_path / "one", text, trials=50), packs=2, seed=1, kill=0.1).run()
    assert Play(plan_of(tmp_path / "two", text, trials=50)).run() == expected
    study = read_ledger(tmp_path / "two")[0].studies["1"]
    trained = [trial for trial in study.trials if trial.repeats is None]
    assert [trial.settings.get("rank", 4) for trial in trained] == [4, 2]
    assert len(study.trials) < 50
    for trial in study.trials:
        if trial.repeats is not None:
            assert trial.score == study.trials[trial.repeats].score and not trial.lanes


def test_listed_configurations_are_tried_in_order(make: Any, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([{"rank": 2}, {"rank": 4}, {"rank": 8, "beta": 1}]))
    plan = plan_of(tmp_path / "run", "configurations: list.json\nfixed: {epochs: 2}\n")
    Play(plan).run()
    trials = read_ledger(plan.folder)[0].studies["1"].trials
    assert [trial.settings for trial in trials] == [{}, {"rank": 2}, {"rank": 4}, {"beta": 1.0, "rank": 8}]
    assert trials[2].repeats == 0  # the default's own rank


@pytest.mark.parametrize("name", ["../up", "a/b", "", "a\n", "x" * 80])
def test_names_that_are_no_folders_are_refused(tmp_path: Path, name: str) -> None:
    plan = plan_of(tmp_path / "run")
    with pytest.raises(BadInput):
        Coordinator(replace(plan, folds=(name,)))


def test_a_space_that_does_not_fit_the_data_is_refused(make: Any) -> None:
    for text, words in (
        ("combinations: [smell]\n", "not a modality"),
        ("metric: mae\n", "does not fit"),
        ("objective: {mix: {smell: 1}}\n", "not a modality"),
        ("combinations: [audio]\nobjective: {mix: {text: 1}}\n", "not measured"),
    ):
        with pytest.raises(BadInput, match=words):
            make(ONE_SHAPE + text)


def test_declared_combinations_are_measured_in_canonical_order(make: Any) -> None:
    start = make(ONE_SHAPE + "combinations: [text+audio, audio]\n").join("a", 1, "node", "cpu")
    assert start.combinations == (0, 2)


def test_words_from_before_a_crash_are_refused(make: Any) -> None:
    client = make()
    before, _ = orders_of(client)
    client.close()
    client = make()
    now, _ = orders_of(client)
    assert now.lane == before.lane and now.attempt == before.attempt + 1
    client.advance("a", [said(before, 1)], [], [], 0)
    assert not lane_of(client, now).epochs and events(client) == ["refused"]


@pytest.mark.parametrize("spoil", [b"", b'{"best"', b"[1]", b'{"best": []}'])
def test_a_torn_best_json_is_written_anew(make: Any, tmp_path: Path, spoil: bytes) -> None:
    plan = plan_of(tmp_path / "run", trials=4)
    Play(plan).run()
    good = read_json(plan.folder / BEST)
    (plan.folder / BEST).write_bytes(spoil)
    make(SPACE, trials=4)
    assert read_json(plan.folder / BEST)["best"] == good["best"]


def test_a_failed_opening_gives_the_lock_back(make: Any, tmp_path: Path) -> None:
    make().close()
    for _ in range(2):  # the second time it would be Busy
        with pytest.raises(BadInput, match="--fork"):
            make(ONE_SHAPE + "search_seed: 5\n")
