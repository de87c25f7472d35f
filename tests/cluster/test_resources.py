"""How many packs fit, and the sums of what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcutune.cluster.resources import Capacity, Node, Request, fitting, plan
from mcutune.errors import BadInput, NoResources

TWO_CPUS = Capacity((Node(2),))


def test_as_many_packs_as_fit() -> None:
    assert plan(Request(), TWO_CPUS).packs == 2
    assert plan(Request(cpus=2), TWO_CPUS).packs == 1
    assert plan(Request(workers=2, cpus=2), Capacity((Node(1), Node(1)))).packs == 1  # a pack over two nodes
    assert plan(Request(gpus=1), Capacity((Node(16, gpus=4), Node(1, gpus=4)))).packs == 5


def test_no_more_packs_than_have_work() -> None:
    assert plan(Request(), Capacity((Node(64),)), useful=3).packs == 3
    assert plan(Request(packs=5), Capacity((Node(64),)), useful=3).packs == 5  # what was asked for is not corrected


def test_memory_bounds_the_automatic_number_only() -> None:
    small = Capacity((Node(16, memory=4e9),))
    assert plan(Request(), small).packs == 3
    assert plan(Request(packs=16), small).packs == 16


def test_workers_do_not_share_the_rests_of_two_gpus() -> None:
    assert fitting(Request(gpus=0.4), (Node(16, gpus=2),)) == 4
    assert fitting(Request(gpus=0.1), (Node(16, gpus=1),)) == 10
    assert fitting(Request(workers=2, cpus=2, gpus=2), (Node(16, gpus=1), Node(16, gpus=3))) == 2


@pytest.mark.parametrize(
    ("request_", "capacity", "words"),
    [
        (
            Request(packs=3),
            TWO_CPUS,
            ["3 packs x 1 worker x 1 CPU = 3 CPUs", "has 2 CPUs and 0 GPUs", "at most 2 packs"],
        ),
        (Request(workers=4, cpus=4), TWO_CPUS, ["1 pack x 4 workers x 1 CPU = 4 CPUs", "fewer CPUs or workers"]),
        (Request(gpus=1), TWO_CPUS, ["1 pack x 1 worker x 1 GPU = 1 GPU", "0 GPUs", "none to run on the CPU"]),
        (
            Request(packs=9),
            Capacity((Node(2),), grows=True, most=Node(8)),
            ["9 packs", "at most 8 CPUs and 0 GPUs"],
        ),
        (Request(cpus=2), Capacity((Node(1), Node(1))), ["1 pack x 1 worker x 2 CPU", "has 2 CPUs", "on 2 nodes"]),
    ],
)
def test_the_impossible_is_refused_with_the_sum(request_: Request, capacity: Capacity, words: list[str]) -> None:
    with pytest.raises(NoResources) as refused:
        plan(request_, capacity)
    assert refused.value.exit_code == 5
    assert [word for word in words if word not in str(refused.value)] == []


def test_on_a_cluster_that_grows_packs_may_wait() -> None:
    growing = Capacity((Node(0),), grows=True, most=Node(32, gpus=4))
    assert plan(Request(gpus=1), growing, useful=3).packs == 3
    assert plan(Request(gpus=1), growing).packs == 4
    assert plan(Request(packs=3, gpus=1), growing).waiting == 3
    unknown = Capacity((Node(0),), grows=True)
    assert plan(Request(gpus=1), unknown, useful=3).packs == 1
    assert plan(Request(packs=7, gpus=1), unknown).waiting == 7


@pytest.mark.parametrize(
    "arguments",
    [
        {"packs": 0},
        {"workers": 0},
        {"cpus": 0},
        {"workers": 2, "cpus": 3},
        {"gpus": -1.0},
        {"gpus": float("nan")},
        {"gpus": 1.5},
        {"workers": 2, "cpus": 2, "gpus": 1.0},
        {"workers": 2, "cpus": 2, "gpus": 3.0},
    ],
)
def test_senseless_requests(arguments: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Request(**arguments)  # type: ignore[arg-type]


@given(
    workers=st.integers(1, 4),
    cpus=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0, 2.0]),
    nodes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=4),
)
def test_what_fits_can_be_placed(workers: int, cpus: int, share: float, nodes: list[tuple[int, int]]) -> None:
    """A greedy placement of whole workers on nodes and GPUs never places fewer than `fitting` says."""
    if workers > 1 and 0 < share < 1:
        return
    request = Request(workers=workers, cpus=workers * cpus, gpus=share * workers)
    placed = 0
    for cpu, gpu in nodes:
        devices = [1.0] * gpu
        while cpu >= cpus:
            if share >= 1:
                free = [i for i, d in enumerate(devices) if d == 1.0][: int(share)]
                if len(free) < share:
                    break
                for i in free:
                    devices[i] = 0.0
            elif share:
                fits = [i for i, d in enumerate(devices) if d + 1e-9 >= share]
                if not fits:
                    break
                devices[fits[0]] -= share
            cpu -= cpus
            placed += 1
    assert fitting(request, tuple(Node(c, g) for c, g in nodes)) == placed // workers
