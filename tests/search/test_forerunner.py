"""Who trains encoders ahead of the packs: it holds leases as they do, and is in nothing else one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from mcutune.errors import NoResources
from mcutune.search import forerunner as forerunner_module
from mcutune.search.forerunner import Forerunner
from tests.search.simulate import Play, plan_of
from tests.search.words import ONE_SHAPE, Clock, orders_of

KEY = "ab" * 32


def test_it_is_told_what_the_first_pack_will_be_given(make: Any) -> None:
    client = make(ONE_SHAPE)
    start, seeds = client.forerun("ahead")
    assert start == client.join("a", 2, "node", "cpu")
    assert seeds == (0, 1)
    client.stop()
    assert client.forerun("ahead") is None


def test_packs_wait_for_what_it_trains_until_it_has_ended(make: Any) -> None:
    client = make(ONE_SHAPE)
    client.forerun("ahead")
    assert client.encoder(KEY, "ahead") == "train"
    assert client.join("a", 2, "node", "cpu") is not None
    assert client.encoder(KEY, "a") == "wait"
    client.forerun_ended()
    assert client.encoder(KEY, "a") == "train"
    assert client.encoder(KEY, "ahead") == "wait"  # a late word of one that was believed to be gone
    client.put_encoder(KEY, {"encoder.safetensors": b"weights"})
    assert client.encoder(KEY, "ahead") == {"encoder.safetensors": b"weights"}


def test_one_that_was_never_heard_of_holds_nothing(make: Any) -> None:
    client = make(ONE_SHAPE)
    assert client.encoder(KEY, "stranger") == "train"
    assert client.join("a", 2, "node", "cpu") is not None
    assert client.encoder(KEY, "a") == "train"


def test_it_is_no_pack(make: Any) -> None:
    clock = Clock()
    client = make(ONE_SHAPE, clock=clock)
    client.forerun("ahead")
    assert client.encoder(KEY, "ahead") == "train"
    assert client.progress().packs == 0
    orders = orders_of(client, "a", 99)
    assert {order.lane for order in orders} == {lane for lane, _, _ in client._studies["1"].ready()}
    assert client.refuse("other", "no room", "buy some")
    clock.now += 10_000  # a pack is silent by then, and gone
    assert client.encoder(KEY, "b") == "wait"
    with pytest.raises(NoResources):
        client.refuse("b", "no room", "buy some")


def test_the_ledger_is_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path / "home"))

    class Led(Play):
        def _open(self) -> Any:
            opened = super()._open()
            opened.forerun("ahead")
            opened.encoder(KEY, "ahead")
            return opened

    alone = Play(plan_of(tmp_path / "alone"), packs=2).run()
    led = Led(plan_of(tmp_path / "led"), packs=2, kill=0.05, seed=3)
    assert led.run() == alone and led.kills > 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A forerunner whose task is none; what it tells the coordinator, and whether the task has ended."""
    found = SimpleNamespace(told=[], ended=False, now=0.0)
    actor = SimpleNamespace(forerun_ended=SimpleNamespace(remote=lambda: found.told.append("ended")))
    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: "reference"))
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: task)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []) if found.ended else ([], refs))
    monkeypatch.setattr(forerunner_module, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    found.forerunner = Forerunner(actor, "ahead", SimpleNamespace(node="n"), None, clock=lambda: found.now)  # type: ignore[arg-type]
    return found


def test_its_end_is_told_once(watched: Any) -> None:
    watched.forerunner.check()
    assert watched.told == []
    watched.ended = True
    watched.forerunner.check()
    watched.forerunner.check()
    assert watched.told == ["ended"]


def test_one_that_hangs_is_waited_for_ten_minutes(watched: Any) -> None:
    watched.now = 599.0
    watched.forerunner.check()
    assert watched.told == []
    watched.now = 601.0
    watched.forerunner.check()
    assert watched.told == ["ended"]
