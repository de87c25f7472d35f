"""What is kept of packs' sizes, what is told of them, and who may leave where a lane does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.pack import Timing
from mcutune.domain.trial import LaneId
from mcutune.errors import NoResources
from mcutune.search.pack_sizes import Timings, sizes, told
from tests.search.simulate import SPACE
from tests.search.words import events, orders_of

FACTS = {"batch": 16}
ROWS = (Timing(1, 0.5, 100, 0.1), Timing(2, 0.6, 150, 0.2))


def test_timings_are_kept_by_their_facts(tmp_path: Path) -> None:
    kept = Timings(tmp_path / "timings")
    assert kept.get(FACTS) == ()
    kept.put(FACTS, ROWS)
    assert Timings(tmp_path / "timings").get(FACTS) == ROWS and kept.get({**FACTS, "batch": 32}) == ()
    kept.put(FACTS, ROWS[:1])  # a pack that knows less
    assert kept.get(FACTS) == ROWS


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b'{"facts": {}, "timings": [{"lanes": 1, "seconds": 1, "memory": 1, "spent": 1}]}',
        b'{"facts": {"batch": 16}, "timings": [{"lanes": 1}]}',
        b'{"facts": {"batch": 16}, "timings": [{"lanes": 1, "seconds": 0, "memory": 1, "spent": 1}]}',
        b'{"facts": {"batch": 16}, "timings": [{"lanes": "1", "seconds": 1, "memory": 1, "spent": 1}]}',
    ],
)
def test_what_is_damaged_is_measured_anew(tmp_path: Path, damage: bytes) -> None:
    kept = Timings(tmp_path)
    kept.put(FACTS, ROWS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert kept.get(FACTS) == ()
    kept.put(FACTS, ROWS)
    assert kept.get(FACTS) == ROWS


def test_what_a_worker_says_is_checked(tmp_path: Path) -> None:
    Timings(tmp_path).put(FACTS, ROWS[::-1])
    assert list(tmp_path.iterdir()) == []


def test_packs_share_what_they_measured(make: Any, tmp_path: Path) -> None:
    client = make()
    client.put_timings(FACTS, ROWS)
    assert client.timings(FACTS) == ROWS
    (path,) = (tmp_path / "home" / "timings").iterdir()
    assert json.loads(path.read_text())["timings"][1]["lanes"] == 2


def test_a_full_disk_costs_a_measurement_only(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    client = make()
    monkeypatch.setattr("mcutune.search.pack_sizes.write_json", full)
    client.put_timings(FACTS, ROWS)
    assert orders_of(client)


def test_a_size_is_told_once_and_counts_as_capacity(make: Any) -> None:
    client = make()
    orders_of(client, "run-pack0-1", 40)
    assert client.progress().capacity == 40
    for _ in range(2):
        client.sized("run-pack0-1", 24, "measured")
    client.sized("a stranger", 3, "measured")
    assert client.progress().capacity == 24 and events(client).count("sized") == 1
    client.sized("run-pack0-1", 12, "after out of memory")
    assert events(client).count("sized") == 2


def test_sizes_in_words_are_the_last_of_every_pack() -> None:
    said = [
        told("run-pack0-1", 24, "measured"),
        told("run-pack1-1", 48, "measured"),
        told("run-pack1-2", 24, "measured"),
        told("run-pack2-1", 1, "after out of memory"),
    ]
    assert sizes(said) == ["2 packs of 24 lanes (measured)", "1 pack of 1 lane (after out of memory)"]


def test_a_pack_that_fits_nothing_leaves_the_work_to_others_and_the_last_one_ends_it(make: Any) -> None:
    client = make()
    held = orders_of(client, "small", 2)
    client.join("large", 2, "node", "cpu")
    assert client.refuse("small", "one lane does not fit", "search smaller ones") is True
    taken = [order.lane for order in client.advance("large", [], [], [], 2).start]
    assert taken == [order.lane for order in held] == [LaneId("1", 0, 0), LaneId("1", 0, 1)]
    with pytest.raises(NoResources, match="does not fit"):
        client.refuse("large", "one lane does not fit", "search smaller ones")


def test_where_shapes_differ_a_pack_stays(make: Any) -> None:
    client = make(SPACE)
    orders_of(client, "small", 2)
    assert client.refuse("small", "one lane does not fit", "search smaller ones") is False
    assert len(client.advance("small", [], [], [], 0).verdicts) == 2  # its lanes are still its own
