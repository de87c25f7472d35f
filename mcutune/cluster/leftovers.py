"""What a search that was killed still holds of an existing cluster.

Ray frees the placement groups of a job that ends, but not one that it is placing at that moment (seen with 2.60, after
a node and then the driver were killed): it stays, without an owner, and nobody gets its CPUs until somebody removes
it. A local Ray ends with its search.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from mcutune.cluster.place import Place

MARK = "mcutune"  # in the metadata of every job of ours
_EVERY = 5.0  # seconds: the former driver may end, and its last group be placed, after the next one has begun
_JOB = 8  # hexadecimal digits of a job's id, the last of those of a placement group


@contextlib.contextmanager
def removing_leftovers(place: Place) -> Iterator[None]:
    """While open, an existing cluster is freed of what ended jobs of ours hold; in a thread, as Ray may not answer."""
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            with contextlib.suppress(Exception):  # Ray's head is away: whoever watches it says so
                remove_leftovers()
            over.wait(_EVERY)

    if place.kind == "cluster":
        threading.Thread(target=sweep, name="mcutune-leftovers", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def remove_leftovers() -> list[str]:
    """Remove the placement groups that ended jobs of ours hold of the connected cluster, and return their ids."""
    from ray.util.placement_group import placement_group_table, remove_placement_group

    table: dict[str, dict[str, Any]] = placement_group_table()
    left = held_by(_ended_jobs(), table.values())
    for name in left:
        remove_placement_group(_group(name))
    return left


def held_by(jobs: set[str], groups: Iterable[dict[str, Any]]) -> list[str]:
    """The placement groups (ids) of Ray's table that these jobs (ids) have and that are not removed yet."""
    return [
        group["placement_group_id"]
        for group in groups
        if group["state"] != "REMOVED" and group["placement_group_id"][-_JOB:] in jobs
    ]


def _ended_jobs() -> set[str]:
    import ray._private.worker as worker

    head: Any = worker.global_worker
    jobs = head.gcs_client.get_all_job_info()
    return {job.hex() for job, facts in jobs.items() if facts.is_dead and MARK in facts.config.metadata}


def _group(name: str) -> Any:
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    return PlacementGroup(PlacementGroupID.from_hex(name))
