"""Packs on Ray: each is one Ray Tune trial that opens one Ray Train worker group, again where that dies.

Knows nothing of a search: the train loop is given, and an actor that says whether another worker group is wanted.
Tune's and Train's files lie in the private folder of the place and are never read back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from mcutune.cluster.barrier import without_barrier
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Plan

Loop = Callable[[dict[str, Any]], None]
_told_to_stop: set[str] = set()  # fleets of this process; a stopper is pickled, so it carries only the key
_TURN = 0.25  # seconds after which a pack asks again whether it may start
# Of the process that opens worker groups and runs Train's controller. It hardly computes, so it hardly ever dies; and
# one that cannot even start must come to an end: `begin` counts only groups.
_DRIVER_RESTARTS = 20


@dataclass(frozen=True)
class Fleet:
    """What to run.

    `loop`: the Train loop, called with {**settings, "actor", "pack", "index", "storage"}. `actor`: the name of the
    actor with `turn(index)`, which tells whether a worker group may start now, and `begin(index, reason)`, which
    answers (a new name, placement group left behind or None), or None for no more. `reason`: why the pack's former
    worker group, if any, ended.
    """

    name: str
    place: Place
    plan: Plan
    actor: str
    loop: Loop
    settings: dict[str, Any] = field(default_factory=dict)


class _StopWhenTold(tune.Stopper):
    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._key in _told_to_stop


class RunningFleet:
    """A fleet at work: Ray Tune in a thread of this process."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._key = str(fleet.place.folder / fleet.name)
        self._errors: list[str] = []
        self._thread = threading.Thread(target=self._fit, name="mcutune-packs", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Every pack has returned or given up."""
        return not self._thread.is_alive()

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong in Ray Tune itself, one line each; known when the fleet has ended."""
        return tuple(self._errors)

    def stop(self) -> None:
        """Make Tune end its trials, also those that wait for resources."""
        _told_to_stop.add(self._key)

    def join(self, seconds: float) -> bool:
        """Wait for the end; True if it came."""
        self._thread.join(seconds)
        return self.ended

    def _fit(self) -> None:
        try:
            _start_helpers(autoscaled=self._fleet.place.kind == "cluster")
            results = _tuner(self._fleet, self._key).fit()
            self._errors.extend(short(error) for error in results.errors)
        except BaseException as error:  # an exception of a thread would only be printed
            self._errors.append(short(error))
        finally:
            _told_to_stop.discard(self._key)


def _start_helpers(autoscaled: bool) -> None:
    """Start the actors that all controllers of Ray Train share, beside the first pack: it would wait for each of them.

    They are Ray's own, found by name; where a version has none by these names, its controllers do what they need.
    """
    with contextlib.suppress(Exception):
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )
        from ray.train.v2._internal.state.state_actor import get_or_create_state_actor

        if autoscaled:
            get_or_create_autoscaling_coordinator()
        get_or_create_state_actor()


def _tuner(fleet: Fleet, key: str) -> tune.Tuner:
    request = fleet.plan.request
    config = {
        "name": fleet.name,
        "actor": fleet.actor,
        "storage": str(fleet.place.folder / "train"),
        "workers": request.workers,
        "cpus": request.cpus_per_worker,
        "gpus": request.gpus_per_worker,
        "autoscaled": fleet.place.kind == "cluster",
        "index": tune.grid_search(list(range(fleet.plan.packs))),
    }
    # The trial itself computes nothing: it takes no CPU, and stays on the node where the search runs.
    resources = {"CPU": 0, fleet.place.pin: 0.001}
    driver = tune.with_parameters(drive, loop=fleet.loop, settings=fleet.settings)
    return tune.Tuner(
        tune.with_resources(driver, resources),
        param_space=config,
        tune_config=tune.TuneConfig(trial_name_creator=_trial_name, trial_dirname_creator=_trial_name),
        run_config=tune.RunConfig(
            name=fleet.name,
            storage_path=str(fleet.place.folder / "tune"),
            failure_config=tune.FailureConfig(max_failures=_DRIVER_RESTARTS),
            stop=_StopWhenTold(key),
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return f"{trial.config['name']}-pack{trial.config['index']}"


def drive(config: dict[str, Any], loop: Loop, settings: dict[str, Any]) -> None:
    """One pack, run as a Ray Tune trial: worker groups one after another, until one ends by itself or none is wanted.

    Each has a name of its own, since Train resumes a run of the same name by itself.
    """
    from ray.train import TrainingFailedError

    actor: Any = ray.get_actor(config["actor"])
    begun: tuple[str, Any] | None
    reason = "the process that opens worker groups died"  # read only where there was a group before
    groups = 0
    while (begun := _begun(actor, config["index"], reason)) is not None:
        groups += 1
        pack, left_behind = begun
        if left_behind is not None:
            ray.util.remove_placement_group(left_behind)
        try:
            _trainer(config, pack, loop, settings).fit()
            break
        except (TrainingFailedError, ray.exceptions.RayActorError) as error:
            reason = short(error)
    tune.report({"worker_groups": groups})


def _begun(actor: Any, index: int, reason: str) -> tuple[str, Any] | None:
    """The actor's answer once it is the turn of this pack."""
    while not ray.get(actor.turn.remote(index)):
        time.sleep(_TURN)
    found: tuple[str, Any] | None = ray.get(actor.begin.remote(index, reason))
    return found


def _trainer(config: dict[str, Any], pack: str, loop: Loop, settings: dict[str, Any]) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.config import FailureConfig

    per_worker = {"CPU": config["cpus"]}
    if config["gpus"]:
        per_worker["GPU"] = config["gpus"]
    more = {"actor": config["actor"], "pack": pack, "index": config["index"], "storage": config["storage"]}
    base, its_own = _base(config["workers"], config["gpus"])
    if config["workers"] == 1:
        without_barrier()
    return _with_less(base, config["autoscaled"])(
        loop,
        train_loop_config={**settings, **more},
        scaling_config=ScalingConfig(
            num_workers=config["workers"], use_gpu=bool(config["gpus"]), resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=pack,
            storage_path=config["storage"],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
        **its_own,
    )


def _base(workers: int, gpus: float) -> tuple[Any, dict[str, Any]]:
    """Ray Train's trainer for such a pack, and what it alone takes.

    One worker on CPUs needs no process group of torch, and so no torch in the process that opens it: seconds of every
    start.
    """
    if workers == 1 and not gpus:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        return DataParallelTrainer, {}
    from ray.train.torch import TorchConfig, TorchTrainer

    # A rank that hangs is noticed in a minute, not in the half hour of torch's default.
    return TorchTrainer, {"torch_config": TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=60)}


def _with_less(base: Any, autoscaled: bool) -> Any:
    """A trainer without the processes that serve nothing here: the start of a pack is that of its processes.

    There are no Ray datasets, and what a dead process leaves behind is freed in `drive`. The controller runs in this
    process, which is nothing without it. `autoscaled`: whether there is an autoscaler that could hear of the pack.
    """
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    fixed: Any = FixedScalingPolicy

    class Unheard(fixed):
        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class PackTrainer(base):
        def _create_default_callbacks(self) -> list[Any]:
            unneeded = ("DatasetsCallback", "PlacementGroupCleanerCallback")
            return [c for c in super()._create_default_callbacks() if type(c).__name__ not in unneeded]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            if not autoscaled:
                given["scaling_policy"] = Unheard(self.scaling_config)
            controller: Any = TrainController(**given)
            asyncio.run(controller.run())
            return controller.get_result()

    return PackTrainer


def short(error: BaseException) -> str:
    """An error in one line: the last of a remote traceback is what was raised, the first of others what happened."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return short(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    remote = any(line.startswith('File "') for line in lines)
    return lines[-1] if remote else lines[0]
