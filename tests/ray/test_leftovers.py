"""What a killed search holds of a cluster is freed by the next one, and nothing that is anybody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from mcutune.cluster.leftovers import _group, held_by, remove_leftovers
from mcutune.cluster.place import Place
from tests.ray.conftest import ROOT, eventually

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
Job = subprocess.Popen[str]

# A group that Ray does not remove with its job stands for one that it forgot.
_HOLD = """
import sys
from ray.util.placement_group import placement_group, remove_placement_group
group = placement_group([{sys.argv[2]: 0.001}], lifetime="detached", name=sys.argv[3])
assert group.wait(60)
print(group.id.hex(), flush=True)
sys.stdin.read()
"""
_OURS = (
    "import sys; from mcutune.cluster.connect import connect; place = connect(sys.argv[1]); place.__enter__()" + _HOLD
)
_OTHER = "import ray, sys; ray.init(sys.argv[1], _node_ip_address='127.0.0.1', log_to_driver=False)" + _HOLD


@pytest.fixture
def hold(place: Place) -> Iterator[Callable[[str, str], tuple[Job, str]]]:
    """Starts a job that holds a group of this name until its input ends; returns it and the group's id."""
    started: list[Job] = []

    def start(program: str, name: str) -> tuple[Job, str]:
        environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(place.token_file), "RAY_ADDRESS": ""}
        job = subprocess.Popen([sys.executable, "-c", program, place.address, place.pin, name], cwd=ROOT, text=True,
                               env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        started.append(job)
        assert job.stdout is not None
        return job, job.stdout.readline().strip()

    yield start
    for job in started:
        job.kill()
        job.communicate()


def test_only_what_an_ended_search_holds_is_removed(place: Place, hold: Callable[[str, str], tuple[Job, str]]) -> None:
    from ray.util.placement_group import placement_group_table, remove_placement_group

    (ours, mine), (other, foreign) = hold(_OURS, "ours"), hold(_OTHER, "other")
    assert mine and foreign
    other.kill()
    other.wait()
    assert remove_leftovers() == [], "it lives"
    ours.kill()
    assert eventually(remove_leftovers, 30, "the end of the search") == [mine]
    assert eventually(lambda: placement_group_table()[mine]["state"] == "REMOVED", 30, "its removal")
    assert remove_leftovers() == []
    assert placement_group_table()[foreign]["state"] == "CREATED"
    remove_placement_group(_group(foreign))


def test_by_the_job_in_the_id() -> None:
    groups = [
        {"placement_group_id": "aa" * 14 + job, "state": state}
        for job, state in (("01000000", "CREATED"), ("01000000", "REMOVED"), ("02000000", "PENDING"))
    ]
    assert held_by({"01000000", "03000000"}, groups) == ["aa" * 14 + "01000000"]
