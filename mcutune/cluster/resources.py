"""The arithmetic of packs: how many fit on a cluster, and refusal of what never can. Pure: no Ray, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcutune.errors import BadInput, NoResources

# What the processes of one pack take beside its data: a Tune trial with Train's controller, a helper, one worker.
# Measured with Ray 2.60 and torch 2.13 on a CPU: 1.2 GB, when the controller still had a process of its own.
PACK_MEMORY = 1_300_000_000
_SLACK = 1e-9  # fractions of a GPU are floats: 3 x 0.1 must fit into 0.3


@dataclass(frozen=True)
class Request:
    """What is asked for. `packs`: None for as many as fit. `cpus`, `gpus`: of one pack, all its workers together.

    Raises BadInput for numbers that no place could satisfy.
    """

    packs: int | None = None
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.packs is not None and self.packs < 1:
            raise BadInput(f"{self.packs} packs are asked for", hint="at least 1")
        if self.workers < 1:
            raise BadInput(f"{self.workers} workers a pack are asked for", hint="at least 1")
        if self.cpus < self.workers or self.cpus % self.workers:
            raise BadInput(
                f"{self.cpus} CPUs a pack do not divide among its {self.workers} workers",
                hint=f"use a multiple of {self.workers}",
            )
        if not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise BadInput(f"{self.gpus} GPUs a pack are asked for", hint="0 or more")
        if self.gpus_per_worker > 1 and not float(self.gpus_per_worker).is_integer():
            raise BadInput(
                f"{self.gpus:g} GPUs a pack over {self.workers} workers is {self.gpus_per_worker:g} each",
                hint="above 1 only whole GPUs a worker",
            )
        if self.workers > 1 and 0 < self.gpus_per_worker < 1:
            raise BadInput(
                f"{self.gpus:g} GPUs a pack over {self.workers} workers is {self.gpus_per_worker:g} each",
                hint="workers of one pack cannot share a GPU; use whole GPUs a worker, or one worker",
            )

    @property
    def cpus_per_worker(self) -> int:
        return self.cpus // self.workers

    @property
    def gpus_per_worker(self) -> float:
        return self.gpus / self.workers


@dataclass(frozen=True)
class Node:
    """What one node has in all, used or not. `memory`: bytes, None if unknown."""

    cpus: float
    gpus: float = 0.0
    memory: float | None = None


@dataclass(frozen=True)
class Capacity:
    """What a place has: its nodes, whether an autoscaler may add more, and up to what total (None: unknown)."""

    nodes: tuple[Node, ...]
    grows: bool = False
    most: Node | None = None

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)


@dataclass(frozen=True)
class Plan:
    """A request that can run: the number of packs, and how many of them wait for the cluster to grow."""

    request: Request
    packs: int
    waiting: int = 0


def plan(request: Request, capacity: Capacity, *, useful: int | None = None) -> Plan:
    """Decide the number of packs. `useful`: more packs than this would have no work (only limits the automatic number).

    Raises NoResources, with the sum spelled out, for what the place cannot run now and cannot grow to.
    """
    now = fitting(request, capacity.nodes)
    limit = most_packs(request, capacity)
    wanted = request.packs
    if wanted is None:
        wanted = max(1, min(_comfortable(request, capacity, limit), useful or limit or 1))
    if limit is not None and wanted > limit:
        raise NoResources(_sum(request, wanted, capacity), hint=_remedy(request, limit))
    return Plan(request, wanted, waiting=max(0, wanted - now))


def fitting(request: Request, nodes: tuple[Node, ...]) -> int:
    """How many packs fit at once: a worker lies on one node, the workers of a pack may lie on several."""
    return sum(_workers_on(request, node) for node in nodes) // request.workers


def _workers_on(request: Request, node: Node) -> int:
    by_cpu = math.floor(node.cpus / request.cpus_per_worker + _SLACK)
    share = request.gpus_per_worker
    if share == 0:
        return by_cpu
    # Below one GPU a worker lies on one GPU; Ray does not add up the rests of two.
    by_gpu = math.floor(node.gpus) * math.floor(1 / share + _SLACK) if share < 1 else math.floor(node.gpus / share)
    return min(by_cpu, by_gpu)


def most_packs(request: Request, capacity: Capacity) -> int | None:
    """The largest number of packs that the place can ever run; None where that is not known."""
    now = fitting(request, capacity.nodes)
    if not capacity.grows:
        return now
    if capacity.most is None:
        return None
    return max(now, fitting(request, (capacity.most,)))


def _comfortable(request: Request, capacity: Capacity, limit: int | None) -> int:
    """The automatic number: what the CPUs and GPUs allow, and on a place that does not grow also the memory."""
    if limit is None:
        return fitting(request, capacity.nodes)
    known = [node.memory for node in capacity.nodes if node.memory is not None]
    if capacity.grows or not known:
        return limit
    return min(limit, max(1, int(sum(known) / PACK_MEMORY)))


def _sum(request: Request, packs: int, capacity: Capacity) -> str:
    top = capacity.most if capacity.grows and capacity.most is not None else Node(capacity.cpus, capacity.gpus)
    shape = f"{packs:,} {_plural(packs, 'pack')} x {request.workers} {_plural(request.workers, 'worker')}"
    parts = [f"{shape} x {request.cpus_per_worker} CPU = {_count(packs * request.cpus, 'CPU')}"]
    if request.gpus:
        parts.append(f"{shape} x {request.gpus_per_worker:g} GPU = {_count(packs * request.gpus, 'GPU')}")
    at_most = "at most " if capacity.grows else ""
    has = f"{at_most}{_count(top.cpus, 'CPU')} and {_count(top.gpus, 'GPU')}"
    nodes = f" on {len(capacity.nodes)} nodes" if len(capacity.nodes) > 1 and not capacity.grows else ""
    return f"{' and '.join(parts)} are asked for, the place has {has}{nodes}"


def _remedy(request: Request, limit: int) -> str:
    if limit:
        return f"at most {limit} {_plural(limit, 'pack')} of this kind {'fits' if limit == 1 else 'fit'}"
    if request.gpus:
        return "ask for fewer GPUs a pack, or for none to run on the CPU"
    return "ask for fewer CPUs or workers a pack, or use a larger cluster"


def _count(count: float, word: str) -> str:
    return f"{count:,.12g} {_plural(count, word)}"


def _plural(count: float, word: str) -> str:
    return word if count == 1 else word + "s"
