"""What tests of the coordinator say and look at."""

from __future__ import annotations

from typing import Any

from mcutune.domain.trial import LaneEpoch, LaneOrder, LaneResult
from mcutune.search.coordinator import Coordinator
from tests.search.simulate import SPACE, epoch_of

ONE_SHAPE = SPACE.replace("  encoder_width: {role: nuisance, values: [64, 128]}\n", "").replace(
    "rungs: {first: 1, eta: 2}", "rungs: none"
)
ALIKE = ONE_SHAPE.replace("8, 16]", "8]")
"""Ranks that are padded alike: packs get lanes in the order of their trials."""


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def orders_of(client: Coordinator, pack: str = "a", places: int = 2) -> tuple[LaneOrder, ...]:
    """Join and take lanes."""
    assert client.join(pack, places, "node", "cpu") is not None
    return client.advance(pack, [], [], [], places).start


def said(order: LaneOrder, epoch: int) -> LaneEpoch:
    found = epoch_of(order, epoch)
    assert isinstance(found, LaneEpoch)
    return found


def result(order: LaneOrder, best: int, weights: bytes = b"w") -> LaneResult:
    return LaneResult(order.lane, order.attempt, best, {"model.safetensors": weights, "checkpoint.json": b"{}"})


def events(client: Coordinator) -> list[str]:
    return [event.kind for event in client._records.events]


def lane_of(client: Coordinator, order: LaneOrder) -> Any:
    return client._records.studies[order.lane.fold].trials[order.lane.trial].lanes[order.lane.seed]
