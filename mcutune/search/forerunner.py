"""The forerunner's process (training.forerunner): a task of a local Ray, which needs none of Tune's and Train's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mcutune.cluster.place import Place

# Seconds after which a pack no longer waits for it: it may hang. At worst both train the same encoders.
_LEASE = 600.0


class Forerunner:
    """A forerunner at work, and who tells the coordinator of its end: a task may be gone without a word."""

    def __init__(
        self,
        actor: Any,
        name: str,
        place: Place,
        memory: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        here = NodeAffinitySchedulingStrategy(place.node, soft=False)
        # It may hold a copy of the data: its process ends with it.
        task: Any = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_forerun)
        self._actor = actor
        self._clock = clock
        self._until = clock() + _LEASE
        self._task = task.options(name=name, scheduling_strategy=here).remote(actor, name, memory)

    def check(self) -> None:
        """Where it has ended, however it did, or hangs, packs are to train what it was training."""
        if self._task is not None and (self._clock() > self._until or ray.wait([self._task], timeout=0)[0]):
            self._task = None
            self._actor.forerun_ended.remote()


def _forerun(actor: Any, name: str, memory: int | None) -> None:
    from mcutune.training.actor_client import ActorClient
    from mcutune.training.device import prepare
    from mcutune.training.forerunner import forerun

    prepare(threads=1, memory=memory)
    forerun(ActorClient(actor), name)
