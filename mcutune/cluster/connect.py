"""Opening places. Ray is imported here and only when a place needs it, after its environment is set."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mcutune
from mcutune.cluster import warden
from mcutune.cluster.gone import abandon, is_gone
from mcutune.cluster.leftovers import MARK
from mcutune.cluster.place import Kind, Place, kind_of
from mcutune.cluster.private import environment, new_token, private_folder, stderr_into
from mcutune.cluster.quick import quick_start, without_goodbye
from mcutune.cluster.resources import Capacity, Node
from mcutune.errors import BadInput, NoResources, UserError

_HEAD = "node:__internal_head__"

# Read by Ray's processes wherever they run; explained at https://docs.ray.io.
SETTINGS = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the Train run of every pack shows in the dashboard
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a report blocks until the next poll; default 2 s
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "180",  # a worker that is stopped, or stuck, is replaced; default 600 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less a pack; a lost pack is ours to restart
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",  # a pack waits for the autoscaler, without new attempts
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the record, not Tune's files
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the only silent one
}

# For a Ray that is started here, for this machine alone.
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds every port to 127.0.0.1, also on Linux
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # its kill would end Tune; memory is bounded in the worker
    "RAY_metrics_report_interval_ms": "2000",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
ONE_NODE = {
    # On a machine that other work starves, all of Ray may be late by minutes. Its own remedies, to end its processes
    # and this one, with code 1 and no word, would end the search; what has really died is seen by search.runner.Pulse.
    # With more nodes than one these would be wrong: Ray would go on placing workers on a node that has died.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1800",
    "RAY_health_check_timeout_ms": "600000",
    "RAY_health_check_failure_threshold": "20",
}


@contextlib.contextmanager
def connect(address: str | None = None, *, cpus: int | None = None, gpus: int | None = None) -> Iterator[Place]:
    """Open the place that an `--address` names (place.kind_of), and close it and all that it started.

    `cpus`, `gpus`: what a local Ray is told it has; None for what the machine has.
    Raises BadInput for an address that cannot be reached or is refused, NoResources where a local Ray cannot start.
    """
    kind, ray_address = kind_of(address)
    with private_folder() as folder:
        if kind == "process":
            yield Place("process", folder)
        elif kind == "local":
            with _local(folder, cpus, gpus) as place:
                yield place
        else:
            with _existing(folder, ray_address) as place:
                yield place


@contextlib.contextmanager
def _local(folder: Path, cpus: int | None, gpus: int | None) -> Iterator[Place]:
    token = new_token(folder)
    values = {**SETTINGS, **LOCAL, **ONE_NODE, "RAY_AUTH_TOKEN_PATH": str(token)}
    without = ("RAY_AUTH_TOKEN", "RAY_ADDRESS")
    with (
        _warden(folder),
        environment(values, without=without),
        _loopback(True),
        quick_start(),
        _ray(
            folder,
            address="local",
            num_cpus=cpus if cpus is not None else usable_cpus(),
            num_gpus=gpus,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _temp_dir=str(folder / "r"),  # Ray opens its folder to everyone; the one around it stays closed
        ) as context,
    ):
        yield _place("local", folder, context, token)


@contextlib.contextmanager
def _warden(folder: Path) -> Iterator[None]:
    process = warden.watch(folder)
    try:
        yield
    finally:
        if is_gone(sys.exc_info()[1]) and process.stdin is not None:
            process.stdin.close()  # it sweeps while this process, which has no time for it, ends
        else:
            process.communicate()  # closes its input, and waits until it has swept


@contextlib.contextmanager
def _existing(folder: Path, address: str) -> Iterator[Place]:
    address = _found(address)
    _reach(address)
    from ray.job_config import JobConfig

    job = JobConfig(metadata={MARK: mcutune.__version__})
    runtime = travelling(SETTINGS, os.environ)
    # Ray takes 127.0.0.1 for this machine's outer address, unless told that all of the cluster is here.
    here = address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")
    values = {**SETTINGS, **token_mode(os.environ)}
    with (
        environment(values),
        _loopback(here),
        _ray(folder, address=address, job_config=job, runtime_env=runtime) as context,
    ):
        yield _place("cluster", folder, context, None)


def token_mode(surrounding: Mapping[str, str]) -> dict[str, str]:
    """Who has a token means to use it; Ray itself shows none to a cluster that is named, unless told to."""
    if "RAY_AUTH_MODE" in surrounding:
        return {}
    named = surrounding.get("RAY_AUTH_TOKEN") or surrounding.get("RAY_AUTH_TOKEN_PATH")
    return {"RAY_AUTH_MODE": "token"} if named or (Path.home() / ".ray" / "auth_token").exists() else {}


def _place(kind: Kind, folder: Path, context: Any, token: Path | None) -> Place:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    me = ray.get_runtime_context().get_node_id()
    mine = next(node for node in nodes if node["NodeID"] == me)
    return Place(
        kind,
        folder,
        address=context.address_info["gcs_address"],
        dashboard=_url(context.dashboard_url),
        metrics=tuple(
            f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            for node in nodes
            if node.get("MetricsExportPort")
        ),
        token_file=token,
        node=me,
        raylet=f"{mine['NodeManagerAddress']}:{mine['NodeManagerPort']}",
        pin=_pin(mine["Resources"]),
    )


def _found(address: str) -> str:
    """The address of the running cluster that `auto` means, any other address as it is."""
    from ray._private.services import get_ray_address_from_environment

    if address != "auto":
        return address
    found = None
    with contextlib.suppress(ConnectionError):
        found = get_ray_address_from_environment("auto", None)
    if not found:
        raise BadInput(
            "no Ray cluster runs on this machine, which --address auto asks for",
            hint="name it by --address HOST:PORT, or leave --address away for a local Ray",
        )
    return found


def _reach(address: str) -> None:
    """Raises BadInput where nothing listens: Ray itself would try for minutes."""
    reason = unreachable(address, seconds=10)
    if reason:
        raise BadInput(
            f"the Ray cluster at {address} cannot be joined: {reason}",
            hint="run this on a node of the cluster, or leave --address away for a local Ray",
        )


def unreachable(address: str, seconds: float = 2.0) -> str:
    """Why nothing listens at HOST:PORT; empty if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextlib.contextmanager
def _loopback(here: bool) -> Iterator[None]:
    """While open, Ray knows whether its cluster is all on this machine: it reads that when it is imported, long ago."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, not here
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _ray(folder: Path, **arguments: Any) -> Iterator[Any]:
    """Ray of this process, quiet, shut down at the end; its failures as errors that a person reads."""
    import ray
    from ray._private import auto_init_hook, worker

    if ray.is_initialized():
        raise BadInput("this process is already connected to a Ray cluster", hint="use a process of its own a search")
    # Else a thread of Tune that outlives the place would start another Ray, and end the process for want of a token.
    auto_init_hook.enable_auto_connect = False
    _read_environment_again()
    said = folder / "ray.init"
    try:
        with stderr_into(said):
            context = _begun(folder, arguments)
    except Exception as error:  # whatever it is: Ray raises plain ones, too
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise no_ray(arguments["address"], error, said.read_text(encoding="utf-8", errors="replace")) from error
    node = worker._global_node if arguments["address"] == "local" else None
    if node is not None:
        without_goodbye(node)
    try:
        yield context
    finally:
        if is_gone(sys.exc_info()[1]):
            abandon(node)
        else:
            ray.shutdown()


def _begun(folder: Path, arguments: Mapping[str, Any]) -> Any:
    """ray.init, which gives a node of its own 30 seconds to start: on a machine that is busy it gets them twice."""
    import ray

    try:
        return ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **arguments)
    except Exception as error:
        if arguments["address"] != "local" or "timed out" not in str(error):
            raise
        ray.shutdown()
        warden.end_all(str(folder / "r"))
        return ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **arguments)


def no_ray(address: str, error: Exception, said: str) -> UserError:
    """What to tell of a Ray that could not be started or joined, from its exception and what it wrote."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if address == "local":
        return NoResources(f"a local Ray does not start: {first}")
    if "Unauthenticated" in said or "uthentication" in first:
        return BadInput(
            f"the Ray cluster at {address} wants another token",
            hint="set RAY_AUTH_TOKEN_PATH to the file with the cluster's token",
        )
    return BadInput(
        f"the Ray cluster at {address} cannot be joined: {first}",
        hint="run this on a node of the cluster, or leave --address away for a local Ray",
    )


def travelling(settings: Mapping[str, str], surrounding: Mapping[str, str]) -> dict[str, Any]:
    """The runtime environment of a search on an existing cluster: the package itself, and Ray's settings.

    Under `ray job submit` the job may bring its own; what it names already is left to it, since Ray refuses twice.
    """
    injected: dict[str, Any] = {}
    with contextlib.suppress(ValueError, AttributeError):
        injected = json.loads(surrounding.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    runtime: dict[str, Any] = {}
    taken = injected.get("env_vars") or {}
    missing = {key: value for key, value in settings.items() if key not in taken}
    if missing:
        runtime["env_vars"] = missing
    if "py_modules" not in injected:
        runtime["py_modules"] = [str(Path(mcutune.__file__).parent)]
        runtime["excludes"] = ["__pycache__"]
    return runtime


def capacity() -> Capacity:
    """What the connected cluster has, and whether an autoscaler may add to it."""
    import ray
    from ray._private.state import state

    nodes = tuple(_node(node["Resources"]) for node in ray.nodes() if node["Alive"])
    most = state.get_max_resources_from_cluster_config()
    if most:
        return Capacity(nodes, grows=True, most=_node(most))
    return Capacity(nodes, grows=autoscaled(ray.get_runtime_context().gcs_address))


def autoscaled(address: str) -> bool:
    """Whether nodes of the cluster have a type: those that were started by hand are reported as node_ID."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(address)
    except Exception:  # an older or a changed protocol: then what is there now is what there is
        return False
    every = (*status.active_nodes, *status.idle_nodes)
    return any(node.ray_node_type_name not in ("", f"node_{node.node_id}") for node in every)


def usable_cpus() -> int:
    """The CPUs that this process may use: its affinity, bounded by a cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    return count


def _pin(resources: Mapping[str, float]) -> str:
    """The resource that only this node has: the head's own, or that of the node's address."""
    names = [name for name in resources if name.startswith("node:")]
    return _HEAD if _HEAD in names else names[0]


def _node(resources: Mapping[str, float]) -> Node:
    return Node(
        cpus=float(resources.get("CPU", 0)), gpus=float(resources.get("GPU", 0)), memory=resources.get("memory")
    )


def _url(dashboard: str | None) -> str | None:
    if not dashboard:
        return None
    return dashboard if "://" in dashboard else f"http://{dashboard}"


def _read_environment_again() -> None:
    """Ray keeps the settings and the token that it read first for the life of the process."""
    import ray

    compiled: Any = ray._raylet
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
