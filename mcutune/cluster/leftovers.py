"""What a search that was killed still holds of an existing cluster.

Ray frees the placement groups of a job that ends, but not one that it is placing at that moment (seen with 2.60, after
a node and then the driver were killed): it stays, without an owner, and nobody gets its CPUs until somebody removes
it. A local Ray ends with its search.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from mcutune.cluster.place import Place

_LOG = logging.getLogger("ray")  # whose words go into the run's logs
MARK = "mcutune"  # in the metadata of every job of ours
_EVERY = 5.0  # seconds: the former driver may end, and its last group be placed, after the next one has begun
_ANSWER, _LAST = 10.0, 2.0  # seconds that Ray's head may take for an answer, and a last look for its end
_JOB = 8  # hexadecimal digits of a job's id, the last of those of a placement group


@contextlib.contextmanager
def removing_leftovers(place: Place) -> Iterator[None]:
    """While open, an existing cluster is freed of what ended jobs of ours hold; in a thread, as Ray may not answer."""
    over = threading.Event()
    sweeping = threading.Thread(target=_sweep, args=(over,), name="mcutune-leftovers", daemon=True)
    if place.kind == "cluster":
        sweeping.start()
    try:
        yield
    finally:
        over.set()
        if place.kind == "cluster":
            sweeping.join(_LAST)  # else it might ask a Ray that is being left


def _sweep(over: threading.Event) -> None:
    said = False
    while not over.is_set():
        try:
            remove_leftovers()
        except Exception as error:  # Ray's head is away, which others watch; or a Ray in which all this is elsewhere
            if not said:
                _LOG.warning("mcutune cannot see what former searches hold: %s", error)
            said = True
        over.wait(_EVERY)


def remove_leftovers() -> list[str]:
    """Remove the placement groups that ended jobs of ours hold of the connected cluster, and return their ids."""
    import ray
    from ray.util.placement_group import placement_group_table, remove_placement_group

    table: dict[str, dict[str, Any]] = placement_group_table()
    mine = ray.get_runtime_context().get_job_id()
    others = {name[-_JOB:] for name, group in table.items() if group["state"] != "REMOVED"} - {mine}
    left = held_by(others & _ended_jobs(), table.values()) if others else []
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
    # Whether a job has tasks, Ray asks its driver, and one that is stopped would be waited for without end.
    jobs = head.gcs_client.get_all_job_info(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True, timeout=_ANSWER
    )
    return {job.hex() for job, facts in jobs.items() if facts.is_dead and MARK in facts.config.metadata}


def _group(name: str) -> Any:
    from ray import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    return PlacementGroup(PlacementGroupID.from_hex(name))
