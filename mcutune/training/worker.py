"""A pack's worker: the one file that knows Ray Train. Connects the training loop to the coordinator's actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train

from mcutune.domain.pack import Client, PackStart, Timing
from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneResult, Orders
from mcutune.training.actor_client import ActorClient

_HEARTBEAT = 30.0  # seconds between two reports to Ray Train; each one waits for the controller's next poll


class GroupClient:
    """domain.pack.Client for the workers of one pack: rank 0 speaks to the coordinator, all get the same answers.

    `share(value)` returns rank 0's value on every rank. Every rank makes the same calls in the same order.
    """

    def __init__(self, client: Client, rank: int, share: Callable[[Any], Any]) -> None:
        self._client = client
        self._first = rank == 0
        self._share = share

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        return self._share(self._client.join(pack, capacity, node, device) if self._first else None)

    def advance(
        self,
        pack: str,
        epochs: list[LaneEpoch],
        failures: list[LaneFailure],
        results: list[LaneResult],
        places: int,
    ) -> Orders:
        return self._share(self._client.advance(pack, epochs, failures, results, places) if self._first else None)

    def fold_data(self, fold: str) -> Any:
        return self._client.fold_data(fold)

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        return self._share(self._client.encoder(key, pack) if self._first else None)

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        if self._first:
            self._client.put_encoder(key, files)

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        return tuple(self._share(self._client.timings(facts) if self._first else None))

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        if self._first:
            self._client.put_timings(facts, timings)

    def sized(self, pack: str, capacity: int, how: str) -> None:
        if self._first:
            self._client.sized(pack, capacity, how)

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        return bool(self._share(self._client.refuse(pack, problem, remedy) if self._first else None))


def train_pack(config: dict[str, Any], run: Callable[..., None] | None = None) -> None:
    """The Train loop of one pack, on every worker of its group.

    `config`: actor (name of the coordinator's), pack, index (of the pack), storage (Train's folder), capacity (lanes),
    measure (whether that is only the most), and of one worker: threads (of torch), gpus, memory (bytes it may allocate
    on the CPU, or None). `run`: training.loop.run_pack, or a stand-in of tests.
    """
    from mcutune.training.device import prepare

    if run is None:
        from mcutune.training.loop import run_pack

        run = run_pack
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    actor = ray.get_actor(config["actor"])
    if rank == 0:
        # Should the process that opened this group die, what it holds is freed by whoever opens the next one.
        ray.get(actor.hold.remote(config["index"], ray.util.get_current_placement_group()))
    client: Client = ActorClient(actor)
    group = None
    if size > 1:
        group, share = _groups()
        client = GroupClient(client, rank, share)
    heartbeat = _Heartbeat(alone=size == 1)
    run(
        client,
        pack=config["pack"],
        capacity=config["capacity"],
        measure=config["measure"],
        node=ray.get_runtime_context().get_node_id(),
        device=prepare(threads=config["threads"], gpus=config["gpus"], memory=config["memory"]),
        heartbeat=heartbeat,
        group=group,
    )
    _final_report(heartbeat.latest, Path(config["storage"]) / config["pack"])


def _groups() -> tuple[Any, Callable[[Any], Any]]:
    """The group that Train's torch backend has made of the pack's workers, and rank 0's word to all.

    Words go over gloo, also where the tensors go over NCCL.
    """
    import torch.distributed

    words = torch.distributed.new_group(backend="gloo")

    def share(value: Any) -> Any:
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=words)
        return box[0]

    return torch.distributed.group.WORLD, share


class _Heartbeat:
    """Hands the pack's metrics to Ray Train now and then.

    A report is a barrier of all workers, which would have to agree on the moment: with several workers none is sent.
    """

    def __init__(self, alone: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._alone = alone
        self._clock = clock
        self._next = clock() + _HEARTBEAT
        self.latest: dict[str, Any] = {}

    def __call__(self, metrics: dict[str, Any]) -> None:
        self.latest = metrics
        if self._alone and self._clock() >= self._next:
            ray.train.report(metrics)
            self._next = self._clock() + _HEARTBEAT


def _final_report(metrics: dict[str, Any], folder: Path) -> None:
    """The last metrics, with a checkpoint, without which Train drops them.

    It is a name only: nothing is uploaded, so a worker needs no file system in common with Train's controller.
    """
    from ray.train import Checkpoint, CheckpointUploadMode

    ray.train.report(
        metrics,
        checkpoint=Checkpoint(str(folder / "end")),
        checkpoint_dir_name="end",
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        delete_local_checkpoint_after_upload=False,
    )
