"""The barrier of a worker group of one worker, which waits for nobody. All of it is private to Ray 2.60.

Ray Train starts a process for it, whatever the size of the group: some seconds of a processor for each start of a pack.
"""

from __future__ import annotations

from typing import Any

import ray


class _Call:
    """A method of an actor that is none: its answer is there at once, what it was given to share or True."""

    def remote(self, *_: Any, data: Any = True, **__: Any) -> Any:
        return ray.put(data)


class NoBarrier:
    """What Ray Train makes, calls and sends to its worker in place of its SynchronizationActor."""

    broadcast_from_rank_zero = reset = set_required_ranks = _Call()

    @classmethod
    def options(cls, **_: Any) -> type[NoBarrier]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> NoBarrier:
        return cls()


def without_barrier() -> None:
    """From now on this process opens worker groups without one: for groups of one worker only.

    Raises AttributeError where Ray Train has it elsewhere.
    """
    from ray.train.v2._internal.execution.worker_group import state, worker_group

    made: Any = worker_group
    ended: Any = state
    _ = made.SynchronizationActor, ended._shutdown_sync_actor
    made.SynchronizationActor = NoBarrier
    ended._shutdown_sync_actor = lambda barrier: None
