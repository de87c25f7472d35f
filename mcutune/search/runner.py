"""A search at work: the coordinator's actor, the packs of Ray Tune, and the process that watches both."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcutune.cluster.connect import unreachable, usable_cpus
from mcutune.cluster.gone import RayGone, is_gone
from mcutune.cluster.interrupts import Interrupts
from mcutune.cluster.leftovers import removing_leftovers
from mcutune.cluster.metrics import Reporter, Snapshot
from mcutune.cluster.place import Place
from mcutune.cluster.resources import Plan
from mcutune.errors import NoResources, Stopped, UserError
from mcutune.files import append_to, refuse_links
from mcutune.search.actor import Answer, CoordinatorActor, Surroundings, snapshot_of

_LEAVE = 5.0  # seconds that packs have to leave when the work is done or a stop was asked for
_GOODBYE = 1.5  # of these, where all that have come have left: others only start, and what for is gone
_FORCE = 3.0  # seconds that Ray Tune has to end those that have not left
_ANY = 1 << 20
_CPUS_OF_A_START = 2  # that the start of a pack keeps busy: processes that load libraries, in turn
_CLOSE = 30.0  # seconds that the coordinator has to close its ledger
# Seconds for which Ray's head, or what of Ray is on this machine, may be gone. Ray itself would end this process
# without a word: a minute after its head, ten seconds after its raylet has gone.
_PATIENCE = 30.0
_LOCAL_PATIENCE = 2.0
Watch = Callable[[Any], None]


@dataclass(frozen=True)
class Job:
    """What a search needs besides the place.

    `make`: makes the search.coordinator.Coordinator inside the actor; it is pickled. `home`: what that process takes
    for MCUTUNE_HOME. `capacity`: lanes a pack; with `measure` the most, of which it uses as many as run best.
    `logs`: folder for Ray's noise. `loop`: the Train loop, None for training.worker.train_pack. `memory`: bytes that a
    worker may allocate on the CPU, None for no bound. `brief_lives`: worker groups of a pack that may end within a
    minute, one after another, before it is given up. `forerun`: whether packs begin with encoders, which a local Ray
    without GPUs trains ahead of them.
    """

    run: str
    make: Callable[[], Any]
    home: Path
    capacity: int
    logs: Path
    loop: Callable[[dict[str, Any]], None] | None = None
    memory: int | None = None
    brief_lives: int = 8
    measure: bool = False
    forerun: bool = False


def run_search(
    job: Job,
    place: Place,
    plan: Plan,
    *,
    watch: Watch | None = None,
    snapshot: Callable[[Any], Snapshot] = snapshot_of,
    every: float = 0.5,
) -> Any:
    """Run a search to its end in an open place with Ray, and return the coordinator's last progress.

    `watch` is called with the progress every `every` seconds. Raises Stopped (by a signal, by the coordinator, or by
    the death of Ray; the same command continues), NoResources when every pack gave up, or the coordinator's own error.
    """
    from ray.exceptions import RayError

    with _noise_into(job.logs / "ray.log"), Interrupts() as interrupts:
        pulse = Pulse(place)
        try:
            with removing_leftovers(place), _coordinator(job, place, snapshot) as actor:
                ahead = _forerunner(job, place, plan, actor)
                fleet = _start(job, place, plan)
                return _watch(fleet, actor, ahead, pulse, interrupts, watch or _nothing, every)
        except RayError as error:
            pulse.ended(error)
            raise Stopped(
                f"Ray has ended: {type(error).__name__}", hint=f"the same command continues; see {job.logs}"
            ) from error


def run_in_process(
    job: Job,
    *,
    threads: int = 1,
    device: str = "cpu",
    watch: Watch | None = None,
    run: Callable[..., None] | None = None,
) -> Any:
    """Run a search in this process with one pack and no Ray, and return the coordinator's last progress.

    `run`: training.loop.run_pack, or a stand-in. Raises Stopped on the first signal, once the pack has left.
    """
    if run is None:
        from mcutune.training.device import prepare
        from mcutune.training.loop import run_pack

        run = run_pack
        prepare(threads=threads, gpus=float(device != "cpu"), memory=job.memory)
    with Interrupts() as interrupts:
        coordinator = job.make()
        try:

            def heartbeat(told: dict[str, Any]) -> None:
                if interrupts.asked:
                    coordinator.stop()
                progress = coordinator.progress()
                (watch or _nothing)(progress)
                if told.get("encoding"):  # else the pack would stay for all encoders that it needs
                    _ended(progress, progress.stopped)

            run(
                coordinator, pack=f"{job.run}-pack0-1", capacity=job.capacity, measure=job.measure, node="here",
                device=device, heartbeat=heartbeat, group=None,
            )  # fmt: skip
            progress = coordinator.progress()
            (watch or _nothing)(progress)
            return _ended(progress, interrupts.asked)
        finally:
            coordinator.close()


@contextlib.contextmanager
def _coordinator(job: Job, place: Place, snapshot: Callable[[Any], Snapshot]) -> Iterator[Any]:
    """The named actor on this node, closed and ended when this is left."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor: Any = (
        ray.remote(CoordinatorActor)
        .options(
            name=_actor_name(job),
            num_cpus=0,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        )
        .remote(
            job.run,
            job.make,
            Surroundings.of_this_process(job.home),
            put=ray.put,
            report=Reporter(job.run).report,
            snapshot=snapshot,
            brief_lives=job.brief_lives,
            # On a cluster a start waits for its own node, and packs that wait are what an autoscaler counts.
            at_once=_ANY if place.kind == "cluster" else max(1, usable_cpus() // _CPUS_OF_A_START),
        )
    )
    try:
        yield actor
    finally:
        if not is_gone(sys.exc_info()[1]):
            with contextlib.suppress(Exception):
                ray.get(actor.close.remote(), timeout=_CLOSE)
            with contextlib.suppress(Exception):
                ray.kill(actor)


def _actor_name(job: Job) -> str:
    return f"{job.run} coordinator"


def _forerunner(job: Job, place: Place, plan: Plan, actor: Any) -> Callable[[], None]:
    """Start a forerunner where that is of use; what is to be called now and then."""
    if not job.forerun or place.kind != "local" or plan.request.gpus:
        return lambda: None
    from mcutune.search.forerunner import Forerunner

    return Forerunner(actor, f"{job.run} forerunner", place, job.memory).check


def _start(job: Job, place: Place, plan: Plan) -> Any:
    from mcutune.cluster.packs import Fleet, RunningFleet

    loop = job.loop
    if loop is None:
        from mcutune.training.worker import train_pack

        loop = train_pack
    settings = {
        "capacity": job.capacity,
        "measure": job.measure,
        "threads": plan.request.cpus_per_worker,
        "gpus": plan.request.gpus_per_worker,
        "memory": job.memory,
    }
    return RunningFleet(
        Fleet(name=job.run, place=place, plan=plan, actor=_actor_name(job), loop=loop, settings=settings)
    )


class Pulse:
    """Whether Ray's head and this node's raylet still listen. Calls between actors go on without them, for a while."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        patience = _PATIENCE if place.kind == "cluster" else _LOCAL_PATIENCE
        self._watched = {"head": (place.address, patience), "raylet": (place.raylet, _LOCAL_PATIENCE)}
        self._missed: dict[str, float] = {}  # since when
        self._clock = clock
        self._looked = clock()

    def check(self) -> None:
        """Raises RayGone when one has been silent for longer than it may."""
        if self._clock() - self._looked < 1.0:
            return
        for name, (address, patience) in self._watched.items():
            reason = unreachable(address)
            if not reason:
                self._missed.pop(name, None)
            elif self._clock() - self._missed.setdefault(name, self._clock()) > patience:
                raise _gone(name, address, reason)
        self._looked = self._clock()

    def ended(self, error: BaseException) -> None:
        """Raises RayGone where an error of Ray's comes of its end: its processes fail before anyone has looked."""
        for name, (address, _) in self._watched.items():
            if reason := unreachable(address):
                raise _gone(name, address, reason) from error


def _gone(name: str, address: str, reason: str) -> RayGone:
    return RayGone(f"Ray's {name} at {address} is gone: {reason}", hint="the same command continues")


def _watch(
    fleet: Any,
    actor: Any,
    ahead: Callable[[], None],
    pulse: Pulse,
    interrupts: Interrupts,
    watch: Watch,
    every: float,
) -> Any:
    """Until the work is done, or a stop was asked for and the packs have left, or no pack is left."""
    deadline: float | None = None
    try:
        while True:
            pulse.check()
            ahead()
            answer = _look(actor, pulse)
            watch(answer.progress)
            if fleet.ended or (deadline is not None and time.monotonic() > deadline):
                break
            if (answer.progress.done or answer.progress.stopped or interrupts.asked) and deadline is None:
                deadline = time.monotonic() + (_LEAVE if answer.progress.packs else _GOODBYE)
                if interrupts.asked:
                    _ask(actor, "stop", pulse)
            fleet.join(every)
        return _last(_look(actor, pulse), fleet, interrupts.asked)
    finally:
        # Packs with nothing to do have returned by themselves; those that wait for resources have to be told.
        fleet.stop()
        fleet.join(0.0 if interrupts.twice or is_gone(sys.exc_info()[1]) else _FORCE)


def _last(answer: Answer, fleet: Any, asked: bool) -> Any:
    if not answer.progress.done and not asked and not answer.progress.stopped and fleet.ended:
        reasons = "; ".join([*answer.losses[-2:], *fleet.errors]) or "they returned without a reason"
        raise NoResources(f"every pack has given up: {reasons}", hint="mend the cause, then the same command continues")
    return _ended(answer.progress, asked)


def _ended(progress: Any, asked: bool) -> Any:
    if not progress.done and (asked or progress.stopped):
        raise Stopped("the search is stopped", hint="the same command continues")
    return progress


def _look(actor: Any, pulse: Pulse) -> Answer:
    """The coordinator's progress; raises the error that ended it."""
    answer = _ask(actor, "look", pulse)
    assert isinstance(answer, Answer)
    if answer.error is not None:
        raise answer.error
    return answer


def _ask(actor: Any, method: str, pulse: Pulse) -> Any:
    """The answer of the coordinator's actor, however long it takes while Ray lives: it may be reading a large table."""
    import ray
    from ray.exceptions import RayError

    try:
        answer = getattr(actor, method).remote()
        while not ray.wait([answer], timeout=1.0)[0]:
            pulse.check()
        return ray.get(answer)
    except RayError as error:
        pulse.ended(error)
        raise


def _nothing(_: Any) -> None:
    pass


@contextlib.contextmanager
def _noise_into(path: Path) -> Iterator[None]:
    """Ray's warnings and the raylet's lines go into a file: the console belongs to the command."""
    import ray._private.worker as worker

    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_links(path.parent)
    logger = logging.getLogger("ray")
    before = (logger.handlers[:], logger.propagate, logger.level, worker.print_to_stdstream)
    with append_to(path) as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        # Tune misses the result files that it was told not to write.
        handler.addFilter(lambda record: "experiment_analysis" not in record.name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
        worker.print_to_stdstream = lambda data, ignore_prefix: _write(file, data)
        try:
            yield
        finally:
            logger.handlers, logger.propagate = before[0], before[1]
            logger.setLevel(before[2])
            worker.print_to_stdstream = before[3]


def _write(file: Any, data: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):  # a late line after the file was closed
        file.writelines(f"{line}\n" for line in data.get("lines", ()))


__all__ = ["Job", "UserError", "run_in_process", "run_search"]
