"""The coordinator's actor as those see it who train for it. Without Ray Train, which takes a second to import."""

from __future__ import annotations

from typing import Any, Literal

import ray

from mcutune.domain.pack import PackStart, Timing
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneResult, Orders


class ActorClient:
    """domain.pack.Client over the coordinator's actor. A call takes some 2 ms."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        return self._call("join", pack, capacity, node, device)

    def advance(
        self,
        pack: str,
        epochs: list[LaneEpoch],
        failures: list[LaneFailure],
        results: list[LaneResult],
        places: int,
    ) -> Orders:
        return self._call("advance", pack, epochs, failures, results, places)

    def fold_data(self, fold: str) -> Any:
        # The actor answers with a reference, so that the arrays travel once a node and are mapped, not copied.
        (reference,) = self._call("fold_data", fold)
        return ray.get(reference)

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        return self._call("encoder", key, pack)

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        self._call("put_encoder", key, files)

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        return tuple(self._call("timings", facts))

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        self._call("put_timings", facts, timings)

    def sized(self, pack: str, capacity: int, how: str) -> None:
        self._call("sized", pack, capacity, how)

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        return bool(self._call("refuse", pack, problem, remedy))

    def forerun(self, forerunner: str) -> tuple[PackStart, tuple[int, ...]] | None:
        """See training.forerunner."""
        return self._call("forerun", forerunner)

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._actor, method).remote(*arguments))
