"""A search of trials that train nothing, through everything else: Tune, Train worker, coordinator's actor, ledger.

    python -m bench.nothing SPACE TRIALS SAMPLER

Prints one JSON object: when (seconds, epoch) a pack had its first answer, the last trial was acknowledged, and the
search returned; and how many trials finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mcutune.domain.pack import Client
from mcutune.domain.trial import LaneEpoch, LaneId, LaneOrder, LaneResult, Verdict

_WEIGHTS = b"\0" * 1024


def pack_of_nothing(
    client: Client,
    *,
    pack: str,
    capacity: int,
    node: str,
    device: str,
    heartbeat: Callable[[dict[str, Any]], None] | None = None,
    group: Any = None,
    measure: bool = False,
    times: Path,
) -> None:
    """As training.loop.run_pack, with epochs that take no time. Leaves {first, last} in times/PACK."""
    import mcutune.training.loop  # noqa: F401  what a real pack has loaded before its first word

    start = client.join(pack, capacity, node, device)
    first = last = time.time()
    running: dict[LaneId, LaneOrder] = {}
    epochs: list[LaneEpoch] = []
    results: list[LaneResult] = []
    while start is not None:
        orders = client.advance(pack, epochs, [], results, capacity)
        last = time.time() if results else last
        ended = [lane for lane, verdict in orders.verdicts.items() if verdict is Verdict.FINISH]
        results = [_result(running.pop(lane)) for lane in ended]
        running |= {order.lane: order for order in orders.start}
        epochs = [] if results else [_epoch(order, len(start.combinations)) for order in running.values()]
        if orders.done and not running and not results:
            start = client.join(pack, capacity, node, device)
            continue
        if not epochs and not results:
            time.sleep(orders.wait)
    (times / pack).write_text(json.dumps({"first": first, "last": last}), encoding="utf-8")


def value_of(settings: object) -> float:
    """A score in [0, 1) that depends on the configuration alone, so that a sampler has something to learn from."""
    return int.from_bytes(hashlib.sha256(repr(settings).encode()).digest()[:6]) / 2**48


def _epoch(order: LaneOrder, count: int) -> LaneEpoch:
    value = value_of(sorted(order.configuration.items()))
    return LaneEpoch(order.lane, order.attempt, 1, (value,) * count, 1.0, (1 / count,) * count, (0.0,) * count)


def _result(order: LaneOrder) -> LaneResult:
    return LaneResult(order.lane, order.attempt, 1, {"model.safetensors": _WEIGHTS, "checkpoint.json": b"{}"})


def loop_of_nothing(config: dict[str, Any], times: Path) -> None:
    """The Train loop of such a pack, through the real worker."""
    from mcutune.training.worker import train_pack

    train_pack(config, run=partial(pack_of_nothing, times=times))


def no_data(fold: str) -> Any:
    """What the coordinator needs to know of a fold's data."""
    from mcutune.domain.task import Task

    modalities = ("audio", "text", "video")
    return SimpleNamespace(
        fold=fold, modalities=modalities, task=Task.CLASSIFICATION, table_hash="none", split_hash="none"
    )


def search(folder: Path, space: str, trials: int, sampler: str) -> dict[str, float]:
    """One search under `folder`, its packs chosen as the command would."""
    from mcutune.cli.searching import Shape, memory_of_a_pack, opened, packs_for
    from mcutune.search.coordinator import Coordinator
    from mcutune.search.run_folder import Plan
    from mcutune.search.runner import Job, run_search
    from mcutune.search.space_file import load_space

    times = folder / "times"
    times.mkdir()
    plan = Plan(
        folder / "runs" / "nothing", load_space(space, trials=trials, sampler=sampler), ("1",), no_data, "none",
        driver=os.getpid(),
    )  # fmt: skip
    shape = Shape("local", None, None, None, 1, 1, None)
    with opened(shape, nullcontext) as (place, capacity):
        packs, lanes = packs_for(plan, shape, place, capacity)
        job = Job(
            plan.name, partial(Coordinator, replace(plan, packs=packs.packs)), folder, lanes, plan.folder / "logs",
            loop=partial(loop_of_nothing, times=times), memory=memory_of_a_pack(packs, place),
        )  # fmt: skip
        progress = run_search(job, place, packs)
        returned = time.time()
    said = [json.loads(path.read_text(encoding="utf-8")) for path in times.iterdir()]
    return {
        "first": min(word["first"] for word in said),
        "last": max(word["last"] for word in said),
        "returned": returned,
        "finished": progress.folds[0].counts["finished"],
        "packs": packs.packs,
    }


def main(space: str, trials: str, sampler: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mcutune-nothing-") as folder:
        os.environ["MCUTUNE_HOME"] = folder
        print(json.dumps(search(Path(folder), space, int(trials), sampler)))


if __name__ == "__main__":
    main(*sys.argv[1:])
