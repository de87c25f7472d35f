"""From the options of `mcutune search` to a search at work: space, data, folds, place, packs, view."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcutune.cli.text import count
from mcutune.errors import BadInput
from mcutune.files import checked_name, home, read_sealed
from mcutune.inert import inert

if TYPE_CHECKING:
    from mcutune.cluster.place import Place
    from mcutune.cluster.resources import Capacity, Request
    from mcutune.cluster.resources import Plan as Packs
    from mcutune.data.table import Table
    from mcutune.data.views import FoldData
    from mcutune.search.run_folder import Plan
    from mcutune.search.space import Space

_MOST_LANES = {True: 512, False: 64}  # of a pack where none are named: where its size is measured, and where not
_LEAST_LANES = 4  # work for which another pack is worth its start
_SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True)
class Asked:
    """What is to be searched. `changes`: top-level keys over those of the space, None where not given."""

    space: str
    data: str | None
    fold: str | None
    folds: str | None
    name: str | None
    fork: str | None
    changes: dict[str, Any]
    normalisation: str | None
    accept_change: bool
    keep: str

    def __post_init__(self) -> None:
        if self.fold is not None and self.folds is not None:
            raise BadInput("--fold and --folds are both given", hint="--fold 3 is one fold, --folds all every fold")
        if self.folds not in (None, "all"):
            raise BadInput(f"--folds {self.folds!r} does not exist", hint="valid: all; one fold is named by --fold")
        if self.fork is not None and self.name is not None:
            raise BadInput("--fork and --name are both given", hint="--fork NEW names the new run")
        self.kept()

    def kept(self) -> int | None:
        """The checkpoints of how many ended trials stay; None for all. Raises BadInput."""
        if self.keep in ("all", "best"):
            return None if self.keep == "all" else 1
        if not re.fullmatch("[1-9][0-9]{0,8}", self.keep):
            hint = "valid: all, best, or a number from 1"
            raise BadInput(f"--keep-checkpoints {self.keep[:80]!r} does not exist", hint=hint)
        return int(self.keep)


@dataclass(frozen=True)
class Shape:
    """Where it runs and in how many packs of which size. `gpus`: None for one GPU a pack where there are GPUs."""

    place: str | None
    address: str | None
    packs: int | None
    lanes: int | None
    cpus: int
    workers: int
    gpus: float | None

    def __post_init__(self) -> None:
        if self.place not in (None, "process", "local", "cluster"):
            raise BadInput(f"--place {self.place!r} does not exist", hint="valid: process, local, cluster")

    def target(self) -> str | None:
        """The address for cluster.connect. Raises BadInput where place and address contradict each other."""
        if self.place in ("process", "local") and self.address is not None:
            raise BadInput(f"--place {self.place} and --address {self.address} are both given", hint="keep one of them")
        if self.place == "cluster":
            return self.address or os.environ.get("RAY_ADDRESS") or "auto"
        return self.place or self.address

    @property
    def measure(self) -> bool:
        """Whether packs find their size on the device. Several workers of one would each find another one."""
        return self.lanes is None and self.workers == 1

    def request(self, gpus_there: float) -> Request:
        """What the packs need."""
        from mcutune.cluster.resources import Request

        gpus = self.gpus if self.gpus is not None else float(self.workers if gpus_there >= self.workers else 0)
        return Request(packs=self.packs, workers=self.workers, cpus=max(self.cpus, self.workers), gpus=gpus)


def prepared(asked: Asked, shape: Shape) -> Plan:
    """The plan of the run; only built-in data is written. Raises BadInput or Problems for what cannot be searched."""
    from mcutune.data.catalog import ensure
    from mcutune.search.run_folder import Plan
    from mcutune.search.space_file import load_space

    space = load_space(asked.space, **asked.changes)
    data = asked.data if asked.data is not None else space.data or "planted"
    run = asked.fork if asked.fork is not None else asked.name
    checked_name(run if run is not None else data, "run" if run is not None else "dataset")
    table = ensure(data)
    name = checked_name(run if run is not None else f"{space.name}-{table.manifest.name}"[:64], "run")
    normalisation: Any = asked.normalisation or table.manifest.normalisation
    if normalisation not in ("train", "group", "none"):
        raise BadInput(f"--normalisation {normalisation!r} does not exist", hint="valid: train, group, none")
    if asked.fork is not None and (home() / "runs" / name).exists():
        raise BadInput(f"run {name} exists already", hint="--fork names a new run")
    return Plan(
        folder=home() / "runs" / name,
        space=space,
        folds=_folds(table, asked),
        fold_data=partial(fold_of, str(table.folder), normalisation),
        data=data,
        threads=max(shape.cpus // shape.workers, 1),
        accept_change=asked.accept_change,
        driver=os.getpid(),
        keep=asked.kept(),
        facts={"normalisation": normalisation},
    )


def fold_of(folder: str, normalisation: Any, fold: str) -> FoldData:
    """What a search may see of a fold; a function of a module, so that it travels to the coordinator's process."""
    from mcutune.data.table import open_table
    from mcutune.data.views import fold_data

    return fold_data(open_table(Path(folder), verify=False), fold, normalisation=normalisation)


def _folds(table: Table, asked: Asked) -> tuple[str, ...]:
    from mcutune.data.splits import folds_of

    there = folds_of(table)
    if asked.folds is not None:
        return there
    if asked.fold is None:
        return there[:1]
    if asked.fold not in there:
        valid = f"valid: {', '.join(there)}; --folds all searches every one"
        raise BadInput(f"dataset {inert(table.manifest.name)} has no fold {asked.fold!r}", hint=valid)
    return (asked.fold,)


def finished(plan: Plan) -> bool:
    """Whether nothing is left to do; also every reason for which the run cannot go on, before a place is opened.

    Raises Busy, Damaged, BadInput for another space, Problems for other data or versions.
    """
    from mcutune.search.coordinator import Coordinator
    from mcutune.search.lock import RunLock
    from mcutune.search.run_folder import BEST, MANIFEST, agree, study_row

    rows = [study_row(plan, plan.fold_data(fold)) for fold in plan.folds]
    if not (plan.folder / MANIFEST).exists():
        return False
    before, now = read_sealed(plan.folder / MANIFEST).get("normalisation"), plan.facts["normalisation"]
    if before != now:
        raise BadInput(
            f"run {plan.name} was made with normalisation {before}, not {now}", hint="--name NEW makes another run"
        )
    if not (plan.folder / BEST).exists():
        RunLock(plan.folder, driver=plan.driver).release()
        if not plan.accept_change:  # else the coordinator does, and notes what it accepted
            agree(plan, rows)
        return False
    coordinator = Coordinator(plan)
    try:
        return coordinator.done
    finally:
        coordinator.close()


def lanes_in_flight(space: Space) -> int:
    """How many lanes of one fold may be at work at once: of the trials that look at no results, later of the lag."""
    from mcutune.search.proposals import looks_back

    first = next((k for k in range(space.trials) if looks_back(space, k)), space.trials)
    return max(first, min(space.trials, space.lag + 1)) * space.seeds


def packs_for(plan: Plan, shape: Shape, place: Place, capacity: Capacity) -> tuple[Packs, int]:
    """The packs, and the lanes of each: those asked for, else the most that can be of use, which they never exceed.

    Raises NoResources with the sum spelled out, BadInput for more than the place can have.
    """
    from mcutune.cluster.resources import plan as resources_plan
    from mcutune.search.sharing import MOST_PACKS, PLACES

    flight = lanes_in_flight(plan.space) * len(plan.folds)
    request = shape.request(capacity.gpus)
    packs = resources_plan(request, capacity, useful=max(1, -(-flight // _LEAST_LANES)))
    if place.kind == "process":
        packs = with_one_pack(packs)
    if packs.packs > flight:  # on a cluster that grows each would have a machine
        packs = replace(packs, packs=flight, waiting=max(0, packs.waiting - (packs.packs - flight)))
    most = lanes_in_flight(plan.space)  # a pack holds lanes of one fold
    by_work = shape.measure and not request.gpus and 1 < packs.packs <= MOST_PACKS
    share = min(ceil(flight / packs.packs * (PLACES if by_work else 1)), _MOST_LANES[shape.measure])
    return packs, min(shape.lanes or share, most)


def what_still_fits(shape: Shape, plan: Plan, place: Place, capacity: Capacity) -> Shape:
    """With no more packs than there is room for, where a search goes on on a cluster: it may have lost a node since.

    Where there is room for none, as it is: that is refused with the sum.
    """
    from mcutune.cluster.resources import most_packs
    from mcutune.search.ledger import DATABASE

    if shape.packs is None or place.kind != "cluster" or not (plan.folder / DATABASE).exists():
        return shape
    most = most_packs(shape.request(capacity.gpus), capacity)
    return replace(shape, packs=min(shape.packs, most)) if most else shape


def beyond_use(shape: Shape, packs: Packs, lanes: int) -> str | None:
    """A line on what was asked for beyond what a search has work for; None where nothing was."""
    few = f"--packs {shape.packs:,}: {count(packs.packs, 'pack')}" if packs.packs < (shape.packs or 0) else ""
    short = f"--lanes {shape.lanes:,}: {count(lanes, 'lane')} a pack" if lanes < (shape.lanes or 0) else ""
    taken = "; ".join(part for part in (few, short) if part)
    return f"{taken}: more would have no work at any time" if taken else None


def slow_precision(plan: Plan, packs: Packs, place: Place) -> str | None:
    """A line where trials compute in bfloat16 on a CPU that gains nothing by it; None elsewhere.

    Of another machine's CPU nothing is known here.
    """
    if place.kind == "cluster" or packs.request.gpus or "bfloat16" not in plan.space.choices("precision"):
        return None
    from mcutune.training.hardware import bfloat16_is_slow

    if not bfloat16_is_slow():
        return None
    return "warning: this CPU has no products in bfloat16: precision bfloat16 is no faster here than float32"


def memory_of_a_pack(packs: Packs, place: Place) -> int | None:
    """Bytes a worker may allocate: on a machine of ours its share, elsewhere the cluster's own limits hold."""
    if place.kind == "cluster":
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total * _SHARE_OF_MEMORY / (packs.packs * packs.request.workers))


@contextmanager
def opened(shape: Shape, waiting: Callable[[], AbstractContextManager[None]]) -> Iterator[tuple[Place, Capacity]]:
    """The place, open, and what it has. `waiting`: shown while it opens."""
    from mcutune.cluster.connect import capacity, connect, usable_cpus
    from mcutune.cluster.resources import Capacity, Node

    target = shape.target()
    with ExitStack() as stack:
        with waiting() if target != "process" else nullcontext():
            place = stack.enter_context(connect(target))
        if place.kind == "process":
            from mcutune.training.hardware import gpus

            yield place, Capacity((Node(float(usable_cpus()), float(len(gpus()))),))
        else:
            yield place, capacity()


def started(plan: Plan, packs: Packs, lanes: int, place: Place) -> str:
    """One line on what begins."""
    space, request = plan.space, packs.request
    device = f"{request.gpus:g} GPU each" if request.gpus else f"{count(request.cpus, 'CPU')} each"
    where = {"process": "in this process", "local": "a local Ray", "cluster": f"Ray at {inert(place.address)}"}[
        place.kind
    ]
    folds = count(len(plan.folds), "fold") if len(plan.folds) > 1 else f"fold {inert(plan.folds[0])}"
    return (
        f"{inert(plan.name)}: {count(space.trials, 'trial')} × {count(space.seeds, 'seed')} on {inert(plan.data)}, "
        f"{folds}; {where}, {count(packs.packs, 'pack')} of up to {count(lanes, 'lane')}, {device}"
    )


def with_one_pack(packs: Packs) -> Packs:
    """What runs where there is no Ray. Raises BadInput where more was asked for."""
    request = packs.request
    if (request.packs or 1) > 1 or request.workers > 1:
        raise BadInput("--place process is one pack with one worker", hint="leave --packs and --workers-per-pack away")
    return replace(packs, packs=1)
