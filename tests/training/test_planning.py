"""How a pack finds its size: the rules, what it must not change, and what happens where memory is short."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from mcutune.domain.pack import Timing
from mcutune.errors import NoResources
from mcutune.search.canonical import ledger_hash
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.pack_sizes import sizes
from mcutune.search.run_folder import Plan
from mcutune.search.space_file import load_space
from mcutune.training import loop, planning
from mcutune.training.memory import free_memory, out_of_memory
from mcutune.training.pack import Pack
from tests.training.fold import SMALL, fold, pack_of

SPACE = """\
question: does measuring change a number?
parameters:
  rank: {role: scientific, values: [1, 2, 3]}
trials: 3
seeds: 2
lag: 2
sampler: grid
rungs: none
"""
CPU = torch.device("cpu")


def timings(*rows: tuple[int, float, int]) -> tuple[Timing, ...]:
    """(lanes, lane-epochs a second, bytes)."""
    return tuple(Timing(lanes, lanes / rate, memory, 0.1) for lanes, rate, memory in rows)


RISING = timings((1, 10, 50), (2, 19, 60), (4, 36, 80))
FLAT = timings((1, 10, 50), (2, 19, 60), (4, 20, 80), (8, 17, 120))


@pytest.mark.parametrize(
    ("known", "most", "room", "expected"),
    [
        ((), 8, 1000, 1),
        (RISING, 16, 1000, 8),
        (RISING, 8, 1000, 8),
        (RISING, 7, 1000, None),
        (RISING, 16, 119, None),  # 80 + 4 x 10 bytes
        (RISING, 16, 120, 8),
        (FLAT, 16, 1000, None),
        (timings((1, 10, 0), (2, 8, 0)), 4, 1000, 4),  # one size may have been disturbed
        (timings((1, 10, 0), (2, 8, 0), (4, 10.9, 0)), 8, 1000, None),
        (timings((1, 10, 0), (2, 8, 0), (4, 11.1, 0)), 8, 1000, 8),
    ],
)
def test_the_next_size_to_try(known: Any, most: int, room: int, expected: int | None) -> None:
    assert planning.next_size(known, most, room, least=1, budget=1.0) == expected


def test_a_size_that_would_take_too_long_is_not_tried() -> None:
    assert planning.next_size(RISING, 16, 1000, least=1, budget=0.2) == 8
    assert planning.next_size(RISING, 16, 1000, least=1, budget=0.19) is None


@pytest.mark.parametrize(
    ("known", "most", "room", "expected"),
    [
        (RISING, 64, 10_000, 64),  # larger was never seen to be useless
        (FLAT, 64, 10_000, 4),  # 8 lanes are slower by a tenth and more
        (timings((1, 10, 0), (2, 19, 0), (4, 20, 0), (8, 19, 0)), 64, 10_000, 8),  # about as fast, and none waits
        (timings((1, 10, 0), (2, 900, 0), (4, 20, 0), (8, 40, 0)), 64, 10_000, 64),  # two lanes faster than one: noise
        (FLAT, 3, 10_000, 3),
        (timings((1, 10, 0), (2, 19, 0), (4, 15, 0), (8, 14, 0)), 64, 10_000, 2),
        (RISING, 64, 150, 11),
        (RISING, 64, 10, 1),
        ((), 64, 40, 8),  # nothing was measured: 5 bytes a lane at least
    ],
)
def test_the_size_that_is_chosen(known: Any, most: int, room: int, expected: int) -> None:
    assert planning.chosen(known, most, room, least=5) == expected


def plan_of(folder: Path, text: str = SPACE) -> Plan:
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    settings = ", ".join(f"{key}: {value}" for key, value in SMALL.items() if f"  {key}:" not in text)
    path.write_text(f"{text}fixed: {{{settings}}}\n")
    return Plan(folder, load_space(str(path)), ("0",), lambda name: fold(), "made")


def search(plan: Plan, lanes: int = 8, *, measure: bool = False) -> tuple[str, Any]:
    """A whole search in this process: the ledger's hash, and its records."""
    coordinator = Coordinator(plan)
    try:
        loop.run_pack(coordinator, pack="run-pack0-1", capacity=lanes, node="n", device="cpu", measure=measure)
        assert coordinator.done
    finally:
        coordinator.close()
    records, _ = read_ledger(plan.folder)
    return ledger_hash(records), records


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("extra", ["", "  encoder: {role: nuisance, values: [trained]}\n"], ids=["frozen", "trained"])
def test_measuring_changes_no_number_and_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    text = SPACE.replace("trials: 3", f"{extra}trials: 3")
    monkeypatch.setitem(planning.MOST_SECONDS, "cpu", 60.0)
    plain, _ = search(plan_of(tmp_path / "plain", text))
    measured, records = search(plan_of(tmp_path / "measured", text), measure=True)
    assert measured == plain
    assert "(measured)" in sizes(records.events)[0]
    stored = [json.loads(path.read_text()) for path in (tmp_path / "home/timings").iterdir()]
    assert [[row["lanes"] for row in one["timings"]][:3] for one in stored] == [[1, 2, 4]] * len(stored)
    assert len(stored) == (2 if extra else 1)  # trial 0 is frozen

    def refuse(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(planning, "_timing", refuse)
    again, records = search(plan_of(tmp_path / "again", text), measure=True)
    assert again == plain and "(measured before)" in sizes(records.events)[0]


def test_a_lane_that_does_not_fit_ends_the_search_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda device: 1000)
    with pytest.raises(NoResources, match="one lane .*batch 32, encoder_width 16.* does not fit") as caught:
        search(plan_of(tmp_path / "run"), measure=True)
    assert caught.value.hint is not None and "batch, encoder_width or rank" in caught.value.hint


@pytest.mark.parametrize("where", ["pack", "epoch"])
def test_memory_that_runs_out_at_the_start_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(Pack, "__init__" if where == "pack" else "epoch", full)
    with pytest.raises(NoResources, match="does not fit"):
        search(plan_of(tmp_path / "run"), measure=True)


def test_where_other_shapes_may_fit_only_those_trials_fail_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SPACE.replace("trials: 3", "  encoder_width: {role: nuisance, values: [16, 1024]}\ntrials: 5")
    monkeypatch.setattr(planning, "lane_memory", lambda pack: 10**15 if pack.shape.encoder_width == 1024 else 1)
    _, records = search(plan_of(tmp_path / "run", text), measure=True)
    ends = {trial.settings.get("encoder_width", 16): trial for trial in records.studies["0"].trials}
    assert ends[16].state.value == "finished"
    assert ends[1024].state.value == "failed" and ends[1024].failure.value == "oom"
    assert "encoder_width 1024" in ends[1024].message


def test_out_of_memory_later_halves_the_pack_and_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = search(plan_of(tmp_path / "plain"))
    whole, seen = Pack.epoch, []

    def epoch(pack: Pack, lanes: Any, most_steps: int | None = None) -> Any:
        seen.append(len(lanes))
        if len(lanes) > 3:
            torch.empty(1 << 60)
        return whole(pack, lanes, most_steps)

    monkeypatch.setattr(Pack, "epoch", epoch)
    halved, records = search(plan_of(tmp_path / "halved"), 6)
    assert halved == plain
    assert seen[0] == 6 and set(seen[1:]) == {3}
    assert sizes(records.events) == ["1 pack of 3 lanes (after out of memory)"]


def test_a_lane_that_runs_out_of_memory_again_fails_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def epoch(pack: Pack, lanes: Any, most_steps: int | None = None) -> Any:
        seen.append(len(lanes))
        assert len(seen) < 12, "tried for ever"
        torch.empty(1 << 60)

    monkeypatch.setattr(Pack, "epoch", epoch)
    _, records = search(plan_of(tmp_path / "run"), 4)
    trials = records.studies["0"].trials
    assert [trial.failure.value for trial in trials] == ["oom"] * 3
    assert seen[:2] == [4, 2]
    assert "out of memory with" in trials[0].message


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_lane_that_cannot_be_made_is_out_of_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    whole, made = Pack.lane, []

    def lane(pack: Pack, order: Any) -> Any:
        made.append(order)
        if len(made) == lanes + 1:
            torch.empty(1 << 60)
        return whole(pack, order)

    plain, _ = search(plan_of(tmp_path / "plain"))
    monkeypatch.setattr(Pack, "lane", lane)
    assert search(plan_of(tmp_path / "run"), 6)[0] == plain


def test_an_error_that_is_not_of_memory_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = pack_of(fold())

    def wrong(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(pack, "epoch", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        planning._attempt(pack, lambda: pack.epoch([], 1))


def test_what_counts_as_out_of_memory() -> None:
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not out_of_memory(RuntimeError("shape")) and not out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)


_PEAKS = """
import torch
from mcutune.training.memory import Peak, free_memory
cpu = torch.device("cpu")
assert 1 << 20 < free_memory(cpu) < 1 << 45
peak = Peak(cpu)
content = torch.ones(10_000_000)
assert 38e6 < peak.taken() < 80e6, peak.taken()
del content
small = [torch.ones(4_000) for _ in range(2_000)]  # from the heap, which keeps what is freed
del small
peak = Peak(cpu)
small = [torch.ones(4_000) for _ in range(2_000)]
assert 25e6 < peak.taken() < 60e6, peak.taken()
"""


def test_free_memory_and_the_peak_are_of_this_process() -> None:
    """In a process of its own: the heap of this one has room that other tests have freed."""
    subprocess.run([sys.executable, "-c", _PEAKS], check=True, timeout=60)


def test_free_memory_of_a_gpu_is_within_the_share_and_counts_what_torch_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = {"memory_reserved": 20, "memory_allocated": 5, "get_per_process_memory_fraction": 0.5}
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 100))
    assert free_memory(torch.device("cuda:0")) == 45
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    assert free_memory(torch.device("cuda:0")) == 25


def test_facts_name_what_speed_depends_on() -> None:
    facts = planning.facts_of(pack_of(fold()))
    assert facts == planning.facts_of(pack_of(fold(seed=1)))
    assert facts != planning.facts_of(pack_of(fold(), {"batch": 16}))
    assert facts != planning.facts_of(pack_of(fold(rows=480)))
    assert facts != planning.facts_of(pack_of(fold(), max_rank=8))
    assert {"device", "shape", "dims", "torch", "code"} <= facts.keys() and json.loads(json.dumps(facts)) == facts


def test_a_timing_is_of_whole_epochs() -> None:
    """The seconds of a few steps, extrapolated, are about those of an epoch."""
    pack = pack_of(fold(rows=2400), {"batch": 16})
    timing = planning._timing(pack, 2, budget=60.0)
    lanes = [planning._throw_away(pack, number) for number in range(2)]
    whole = min(planning._clocked(pack, lanes, pack.steps(lanes)) for _ in range(2))
    assert timing.lanes == 2 and whole / 4 < timing.seconds < whole * 4
    assert asdict(timing)["spent"] > 0
